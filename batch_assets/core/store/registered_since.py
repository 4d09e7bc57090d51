"""Request files that other processes register while a submission or a retry is written.

Which requests are in flight is read before they are selected. Until the new request files are registered, builds
and retries of other partitions may register the same requests, and these may even be answered by then. So the
transaction that registers files compares: it registers them only if it has looked at every file that others
registered. Files are looked at outside of the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import MissingFileError
from batch_assets.core.io.names import RequestFileId
from batch_assets.core.ledger import Transaction, files
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.in_flight import RequestsInFlight, known_digests

LOOKS = 50
"""How many times a registration looks at what others have registered meanwhile, before it gives up."""

T = TypeVar("T")


class RegisteredSince:
    """The request files of a pipeline that came into flight since its requests in flight were read.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        in_flight: The request files that were in flight.
        seq: The newest number in the history then. It must be read in a transaction that locks out the pipeline's
            other writers: a line that is committed later has a number above it.

    Attributes:
        wanted: The ids of files that came since and have, or may have, a request that is wanted.
    """

    def __init__(self, root: Root, pipeline: str, in_flight: Iterable[RequestFile], seq: int) -> None:
        self._root, self._pipeline, self._seq = root, pipeline, seq
        self._seen = {file.id for file in in_flight}
        self.wanted: set[str] = set()

    def new(self, tx: Transaction) -> list[RequestFile]:
        """Return the files that came since, whether or not they are in flight now.

        A file that was in flight, and the parts that it was split into, are not new. A file that was let go has no
        request in flight. If it comes into flight again, the history mentions it again.
        """
        changed = files.changed_since(tx, self._pipeline, self._seq)
        return [file for file in changed if not (file.state.let_go or self._was_seen(file.id))]

    def _was_seen(self, file_id: str) -> bool:
        return not self._seen.isdisjoint({file_id, *map(str, RequestFileId.parse(file_id).wholes())})

    def saw(self, new: Iterable[RequestFile], seq: int) -> None:
        """Count files as seen.

        Args:
            new: The files, which have no request that is wanted.
            seq: The newest number in the history when they were listed.
        """
        self._seen |= {file.id for file in new}
        self._seq = seq

    def have(self, new: Collection[RequestFile], is_wanted: Callable[[Digests], NDArray[np.bool_]]) -> bool:
        """Whether one of some files has, or may have, a request that is wanted. Adds these files to `wanted`.

        Args:
            new: The files.
            is_wanted: Returns of digests, S16, shape (n,), whether each is wanted: bool, shape (n,).
        """
        known = self._root.storage.each(partial(known_digests, self._root.storage), [*new])
        wanted = {file.id for file, has in known if has.problem is not None or bool(is_wanted(has.digests).any())}
        self.wanted |= wanted
        return bool(wanted)


def read_in_flight(
    root: Root, look: Callable[[], tuple[T, list[RequestFile]]], own_partition: str, rows: int
) -> tuple[T, RequestsInFlight]:
    """Read the requests in flight, and once more if a lost request file was settled or replaced meanwhile.

    Args:
        root: The root.
        look: Returns what the ledger has at one time, and the request files in flight.
        own_partition: See `digests_of`.
        rows: See `RequestsInFlight`.

    Returns:
        What the ledger had, and the requests in flight then.

    Raises:
        MissingFileError: When the requests of a lost file are unknown, see `RequestsInFlight`.
    """
    in_ledger, in_flight = look()
    requests, error = None, None
    try:
        requests = RequestsInFlight(root, in_flight, own_partition=own_partition, rows=rows)
    except MissingFileError as missing:
        error = missing
    if requests is None or requests.problems:
        later, in_flight_later = look()
        if in_flight_later != in_flight:
            return later, RequestsInFlight(root, in_flight_later, own_partition=own_partition, rows=rows)
    if requests is None:
        assert error is not None
        raise error
    return in_ledger, requests
