"""The requests of a pilot, taken while the requests of a build pass: random ones, or those that it has already."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.requests.digest_sample import DigestSample
from batch_assets.core.store.digests import Digests, pack

# A pilot has fewer requests rather than more bytes.
_MOST_BYTES = 64 << 20


class Sampled(NamedTuple):
    """Requests of one kind.

    Attributes:
        kind: What decides the request file, see `kinds_of`.
        lines: The lines of the request file.
        digests: Their digests: S16, shape (lines,).
        params: The params of each.
        priorities: The priority of each, 0 without `batching.priority`.
    """

    kind: int
    lines: list[bytes]
    digests: Digests
    params: list[bytes]
    priorities: list[float]


class PilotSample:
    """Keeps a random sample of the requests, and gives back the others.

    Args:
        rows: The most requests.
    """

    def __init__(self, rows: int) -> None:
        self._sample = DigestSample[_Request](rows, _MOST_BYTES, lambda request: len(request.line))

    def add(self, requests: Sampled) -> Iterator[Sampled]:
        """Add requests, each once. Yields those that are not in the sample, by kind.

        Args:
            requests: The requests.
        """
        is_taken = self._sample.takes(requests.digests)
        if not is_taken.all():
            yield _chosen(requests, ~is_taken)
        if is_taken.any():
            kind, lines, digests, params, priorities = _chosen(requests, is_taken)
            taken = [_Request(kind, *values) for values in zip(lines, params, priorities, strict=True)]
            yield from _by_kind(self._sample.add(digests, taken))

    def take(self) -> Iterator[Sampled]:
        """Yield the requests of the sample, by kind."""
        yield from _by_kind(self._sample.kept)


class RequestsOfPilot:
    """Keeps the requests that an earlier pilot has, which are sent again, and gives back the others.

    Args:
        digests: Those of the pilot's requests: S16, shape (n,).
    """

    def __init__(self, digests: Digests) -> None:
        self._digests, self._kept = digests, list[Sampled]()

    def add(self, requests: Sampled) -> Iterator[Sampled]:
        """Add requests, as `PilotSample.add` does."""
        is_own = np.isin(requests.digests, self._digests)
        if is_own.any():
            self._kept.append(_chosen(requests, is_own))
        if not is_own.all():
            yield _chosen(requests, ~is_own)

    def take(self) -> Iterator[Sampled]:
        """Yield what was kept, by kind."""
        yield from sorted(self._kept, key=lambda each: each.kind)


class _Request(NamedTuple):
    """One request, see `Sampled`."""

    kind: int
    line: bytes
    params: bytes
    priority: float


def _chosen(requests: Sampled, is_chosen: NDArray[np.bool_]) -> Sampled:
    kind, lines, digests, params, priorities = requests
    positions = np.flatnonzero(is_chosen).tolist()
    return Sampled(
        kind,
        [lines[at] for at in positions],
        digests[is_chosen],
        [params[at] for at in positions],
        [priorities[at] for at in positions],
    )


def _by_kind(kept: list[tuple[bytes, _Request]]) -> Iterator[Sampled]:
    def kind_of(each: tuple[bytes, _Request]) -> int:
        return each[1].kind

    for kind, some in groupby(sorted(kept, key=kind_of), key=kind_of):
        digests, requests = zip(*some, strict=True)
        _, lines, params, priorities = zip(*requests, strict=True)
        yield Sampled(kind, [*lines], pack([*digests]), [*params], [*priorities])
