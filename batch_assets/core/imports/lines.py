"""The lines of a results file and of a file of requests, as arrays: 16 bytes for each custom_id and params."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.imports.report import ImportFailedError
from batch_assets.core.io.json_text import load_line
from batch_assets.core.store.digests import DIGEST_BYTES, DIGEST_CHARACTERS, Digests, decode_tails

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_NOTHING = bytes(DIGEST_BYTES)
# A whole line is kept in memory. An answer of a million tokens is a tenth of this limit.
_LINE_BYTES = 64 << 20


def hash_of(text: bytes) -> bytes:
    """Return a hash of 16 bytes, by which custom_ids, row keys and params are compared."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def params_hash(params: Any) -> bytes:
    """Return a hash of params as parsed JSON. Neither white space nor the order of an object's keys matters."""
    try:
        text = orjson.dumps(params, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # nested deeper than orjson writes
        text = json.dumps(params, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    return hash_of(text)


@dataclass(frozen=True)
class AnswerLines:
    """The n lines of a results file.

    Attributes:
        path: The file.
        start: The offset of each line; int64, shape (n,).
        end: Its exclusive end; int64, shape (n,).
        ids: The hash of each custom_id, zeros without one; S16, shape (n,).
        digests: The digest at the end of each custom_id, zeros if it cannot be one; S16, shape (n,).
        is_result: Whether each is a result line with a custom_id; bool, shape (n,).
        is_answer: Whether each has an answer; bool, shape (n,).
    """

    path: Path
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    ids: Digests
    digests: Digests
    is_result: NDArray[np.bool_]
    is_answer: NDArray[np.bool_]

    @classmethod
    def read(cls, path: Path) -> AnswerLines:
        """Read a results file, one line at a time.

        Raises:
            ImportFailedError: When a line is longer than any answer.
        """
        starts, ends, ids, tails = array("q"), array("q"), bytearray(), bytearray()
        kinds = bytearray()
        for start, line in _lines(path):
            custom_id, kind = _result(line)
            starts.append(start)
            ends.append(start + len(line))
            ids += hash_of(custom_id) if custom_id is not None else _NOTHING
            tails += _tail(custom_id)
            kinds.append(kind if custom_id is not None else 0)
        digests, is_own = decode_tails(np.frombuffer(bytes(tails), f"S{DIGEST_CHARACTERS}"))
        digests[~is_own] = b""
        found = np.frombuffer(bytes(kinds), np.uint8)
        return cls(
            path,
            np.array(starts, np.int64),
            np.array(ends, np.int64),
            np.frombuffer(bytes(ids), f"S{DIGEST_BYTES}"),
            digests,
            found > 0,
            found > 1,
        )

    def message(self, number: int) -> dict[str, Any]:
        """Return the message of a line that has an answer."""
        message: dict[str, Any] = load_line(self.line(number))["result"]["message"]
        return message

    def custom_id(self, number: int) -> str:
        """Return the custom_id of a line; the start of the line if it has none."""
        line = self.line(number)
        custom_id, _ = _result(line)
        return custom_id.decode() if custom_id is not None else line[:64].decode(errors="replace").strip()

    def line(self, number: int) -> bytes:
        """Return a line."""
        with self.path.open("rb") as file:
            file.seek(int(self.start[number]))
            return file.read(int(self.end[number] - self.start[number]))


def _result(line: bytes) -> tuple[bytes | None, int]:
    """Return the custom_id of a line, and 2 if it has an answer, 1 if it is another result, 0 if it is none."""
    try:
        entry = load_line(line)
        custom_id, kind = entry["custom_id"], entry["result"]["type"]
        has_message = kind == ResultType.SUCCEEDED and isinstance(entry["result"]["message"], dict)
    except (ValueError, KeyError, TypeError):
        return None, 0
    if not isinstance(custom_id, str) or _CUSTOM_ID.fullmatch(custom_id) is None:
        return None, 0
    return custom_id.encode(), 2 if has_message else 1


def _tail(custom_id: bytes | None) -> bytes:
    if custom_id is None or len(custom_id) < DIGEST_CHARACTERS:
        return b"?" * DIGEST_CHARACTERS  # no custom_id has this character
    return custom_id[-DIGEST_CHARACTERS:]


@dataclass(frozen=True)
class KnownParams:
    """What a file of requests shows.

    Attributes:
        ids: The hash of each custom_id, sorted; S16, shape (n,).
        params: The hash of the params of each; S16, shape (n,).
    """

    ids: Digests
    params: Digests

    @classmethod
    def read(cls, path: Path) -> KnownParams:
        """Read a file of requests: JSON Lines with `custom_id` and `params`, as request files have them.

        Raises:
            ImportFailedError: When a line is no request, or a custom_id is there twice with different params.
        """
        ids, params = bytearray(), bytearray()
        for number, (_, line) in enumerate(_lines(path), start=1):
            try:
                entry = load_line(line)
                custom_id, body = entry["custom_id"], entry["params"]
            except (ValueError, KeyError, TypeError):
                custom_id = body = None
            if not isinstance(custom_id, str) or not isinstance(body, dict):
                raise ImportFailedError(
                    f'{path}, line {number}: it is no request, which is {{"custom_id": …, "params": {{…}}}}'
                )
            ids += hash_of(custom_id.encode(errors="surrogatepass"))
            params += params_hash(body)
        unsorted, hashes = (np.frombuffer(bytes(part), f"S{DIGEST_BYTES}") for part in (ids, params))
        order = np.argsort(unsorted, kind="stable")
        known = cls(unsorted[order], hashes[order])
        is_same_id = known.ids[1:] == known.ids[:-1]
        if (is_same_id & (known.params[1:] != known.params[:-1])).any():
            twice = order[1:][is_same_id & (known.params[1:] != known.params[:-1])]
            raise ImportFailedError(
                f"{path}, line {int(twice.min()) + 1}: its custom_id is there before, with other params. A "
                "custom_id is unique within a batch only: import each batch with its own file of requests"
            )
        return known


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line) for each line that is not empty. Only `\\n` ends a line."""
    offset = 0
    with path.open("rb", buffering=1 << 20) as file:
        while line := file.readline(_LINE_BYTES + 1):
            if len(line) > _LINE_BYTES:
                raise ImportFailedError(
                    f"{path}: the line at byte {offset} is longer than {_LINE_BYTES >> 20} MiB"
                )
            if line.strip():
                yield offset, line
            offset += len(line)
