"""Find out which answer belongs to which request. A wrong match is worse than none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.core.imports.lines import AnswerLines, KnownParams, hash_of, params_hash
from batch_assets.core.imports.report import LeftOut, MatchedBy
from batch_assets.core.requests.current_requests import RequestGroup
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, position_in

_WAYS = list(MatchedBy)
_REASONS = list(LeftOut)
_UNDECIDED = -1


class Matching:
    """Matches the lines of a results file to the requests of rows, group by group.

    A line is matched by the digest at the end of its custom_id, which cannot be wrong. Otherwise by its params, if
    a file of requests shows them. If it does not, and only then, by its custom_id as the row key, if the user
    trusts these.

    Args:
        lines: The lines.
        known: What the file of requests shows; `None` without one.
        by_key: Whether the user trusts that a custom_id that is a row key belongs to that row.

    Attributes:
        digests: The digest of the request that each line answers, zeros without one; S16, shape (n,).
        way: The number of the `MatchedBy` of each line, -1 without one; int8, shape (n,).
        reason: The number of the `LeftOut` of each line that is left out, -1 for the others; int8, shape (n,).
    """

    def __init__(self, lines: AnswerLines, known: KnownParams | None, *, by_key: bool) -> None:
        count = len(lines.start)
        self._lines, self._by_key = lines, by_key
        self.digests: Digests = np.zeros(count, f"S{DIGEST_BYTES}")
        self.way = np.full(count, _UNDECIDED, np.int8)
        self.reason = np.full(count, _UNDECIDED, np.int8)
        self._leave_out(~lines.is_result, LeftOut.UNREADABLE)
        self._leave_out(lines.is_result & ~lines.is_answer, LeftOut.NO_ANSWER)
        is_single = lines.is_answer & _occurs_once(lines.ids)
        self._is_known = np.zeros(count, bool)
        self._by_digest = _Lookup(lines.digests, lines.is_answer & (lines.digests != b""))
        self._params: Digests = np.zeros(count, f"S{DIGEST_BYTES}")
        if known is not None and len(known.ids):
            position = position_in(known.ids, lines.ids)
            self._is_known = (position >= 0) & lines.is_result
            self._params = np.where(self._is_known, known.params[np.maximum(position, 0)], self._params)
        self._by_params = _Lookup(self._params, is_single & self._is_known)
        self._by_id = _Lookup(lines.ids, is_single & ~self._is_known)
        self._is_single = is_single

    def add(self, group: RequestGroup) -> None:
        """Match the requests of some rows."""
        at = self._by_digest.find(group.digests)
        self._match(at, group.digests, MatchedBy.DIGEST)
        left = at < 0
        if self._by_params and left.any():
            wanted = [params_hash(orjson.loads(params)) for params in _of(group.params, left)]
            found = self._by_params.find(_packed(wanted))
            has_headers = np.array([bool(headers) for headers in _of(group.headers, left)], bool)
            self._refuse(found[has_headers], LeftOut.HEADERS)
            self._match(np.where(has_headers, -1, found), group.digests[left], MatchedBy.PARAMS)
            left[np.flatnonzero(left)[found >= 0]] = False
        if self._by_id and left.any():
            keys = [hash_of(str(key).encode(errors="surrogatepass")) for key in _of(group.row_keys, left)]
            found = self._by_id.find(_packed(keys))
            if self._by_key:
                params = _of(group.params, left)
                for position in np.flatnonzero(found >= 0).tolist():
                    if not _answers(self._lines.message(int(found[position])), params[position]):
                        self._refuse(found[[position]], LeftOut.OTHER_MODEL)
                        found[position] = -1
                self._match(found, group.digests[left], MatchedBy.KEY)
            else:
                self._refuse(found, LeftOut.KEY_ONLY)

    def finish(self) -> None:
        """Decide about the other lines. Of several that answer one request, the first counts."""
        matched = np.flatnonzero(self.way >= 0)
        _, first = np.unique(self.digests[matched], return_index=True)
        is_repeated = np.ones(len(matched), bool)
        is_repeated[first] = False
        self.leave_out_matched(matched[is_repeated], LeftOut.REPEATED)
        is_open = (self.way < 0) & (self.reason < 0)
        is_copy = ~self._is_single
        for values in (self._lines.digests, self._params):
            is_copy |= (values != b"") & np.isin(values, values[self.way >= 0])
        self._leave_out(is_open & is_copy, LeftOut.REPEATED)
        is_open &= ~is_copy
        self._leave_out(is_open & self._is_known, LeftOut.OTHER_PARAMS)
        self._leave_out(is_open & ~self._is_known, LeftOut.UNKNOWN)

    def leave_out_matched(self, numbers: NDArray[np.intp], reason: LeftOut) -> None:
        """Leave out lines that are matched: intp, shape (m,)."""
        self.way[numbers] = _UNDECIDED
        self.reason[numbers] = _REASONS.index(reason)

    def matched(self) -> NDArray[np.intp]:
        """Return the numbers of the lines to import, in the order of the file: intp, shape (m,)."""
        return np.flatnonzero(self.way >= 0)

    def ways(self) -> dict[MatchedBy, int]:
        """Return the number of lines to import by how they were matched."""
        return {way: number for at, way in enumerate(_WAYS) if (number := int((self.way == at).sum()))}

    def numbers_left_out(self) -> dict[LeftOut, NDArray[np.intp]]:
        """Return the numbers of the lines left out by reason."""
        found = ((reason, np.flatnonzero(self.reason == at)) for at, reason in enumerate(_REASONS))
        return {reason: numbers for reason, numbers in found if len(numbers)}

    def _match(self, at: NDArray[np.int64], digests: Digests, way: MatchedBy) -> None:
        """Match lines, -1 for none, to requests. A line keeps its first request."""
        is_new = at >= 0
        is_new[is_new] = self.way[at[is_new]] < 0
        self.digests[at[is_new]], self.way[at[is_new]] = digests[is_new], _WAYS.index(way)
        self.reason[at[is_new]] = _UNDECIDED

    def _refuse(self, at: NDArray[np.int64], reason: LeftOut) -> None:
        """Note why lines, -1 for none, are left out unless another row matches them."""
        at = at[at >= 0]
        self.reason[at[self.way[at] < 0]] = _REASONS.index(reason)

    def _leave_out(self, mask: NDArray[np.bool_], reason: LeftOut) -> None:
        self.reason[mask] = _REASONS.index(reason)


class _Lookup:
    """Finds the first of some lines by a hash. It takes 24 bytes for each.

    Args:
        values: The hash of every line: S16, shape (n,).
        mask: Which lines may be found: bool, shape (n,).
    """

    def __init__(self, values: Digests, mask: NDArray[np.bool_]) -> None:
        numbers = np.flatnonzero(mask)
        self._values, first = np.unique(values[numbers], return_index=True)
        self._numbers = numbers[first]

    def __bool__(self) -> bool:
        return len(self._numbers) > 0

    def find(self, wanted: Digests) -> NDArray[np.int64]:
        """Return the number of a line for each hash, -1 without one: int64, shape (m,)."""
        position = position_in(self._values, wanted)
        found = position >= 0
        position[found] = self._numbers[position[found]]
        return position


def _occurs_once(ids: Digests) -> NDArray[np.bool_]:
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    is_single: NDArray[np.bool_] = counts[inverse.reshape(-1)] == 1
    return is_single


def _of(values: Sequence[Any], mask: NDArray[np.bool_]) -> list[Any]:
    return [values[at] for at in np.flatnonzero(mask).tolist()]


def _packed(hashes: Sequence[bytes]) -> Digests:
    return np.frombuffer(b"".join(hashes), f"S{DIGEST_BYTES}")


def _answers(message: dict[str, Any], params: bytes) -> bool:
    """Whether the model of an answer is the one that params name, or a version of it."""
    asked, answered = orjson.loads(params).get("model"), message.get("model")
    return isinstance(answered, str) and (answered == asked or answered.startswith(f"{asked}-"))
