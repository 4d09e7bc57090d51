"""The requests of a partition's rows as they are now, whether they are answered or not. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from batch_assets.core.ledger import Lease
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.inputs import BuildInputs, preparing_build, reading_inputs
from batch_assets.core.requests.row_renderer import RowRenderer
from batch_assets.core.requests.submission import Rejects
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests, pack


@dataclass(frozen=True)
class RequestGroup:
    """The requests of some rows.

    Attributes:
        row_keys: The row key of each.
        digests: Their digests: S16, shape (n,).
        params: Their params as JSON.
        headers: The headers of each that are part of its identity.
    """

    row_keys: Sequence[Any]
    digests: Digests
    params: Sequence[bytes]
    headers: Sequence[dict[str, str]]


class CurrentRequests:
    """Renders the rows of a partition. No other process builds requests of it meanwhile.

    Args:
        root: The root.
        pipeline: The pipeline.
        inputs: What is read.

    Attributes:
        lease: The lease on the partition's requests.
        rows: The number of rows so far, rejected ones included.
    """

    def __init__(self, root: Root, pipeline: Pipeline, inputs: BuildInputs) -> None:
        self.lease: Lease = inputs.before.lease
        self.rows = 0
        self._inputs = inputs
        self._renderer = RowRenderer(pipeline, inputs.dataset, inputs.templates, processes=root.settings.processes)

    def close(self) -> None:
        """End the processes that render rows."""
        self._renderer.close()

    def groups(self) -> Iterator[RequestGroup]:
        """Yield the requests of all rows that are not rejected, some thousand at a time.

        Raises:
            DatasetError: When the dataset cannot be used.
        """
        sets = self._renderer.headers.sets
        for rows, row_keys in self._inputs.rows(self._renderer.reads):
            rejects: Rejects = {}
            for group in self._renderer.groups(rows, rejects):
                if group.positions:
                    group_keys = [row_keys[at] for at in group.positions]
                    headers = [sets[number] for number in group.header_sets]
                    yield RequestGroup(group_keys, pack(group.digests), group.params, headers)
            self.rows += len(row_keys)


@contextmanager
def current_requests(
    root: Root, pipeline: Pipeline, partition: str, *, table: Any = None
) -> Iterator[CurrentRequests]:
    """Open the dataset of a partition, and hold the lease on the partition's requests for the block.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used.
        ConfigError: When the pipeline does not fit the dataset's columns.
        BusyError: When other processes worked on the partition's requests the whole time.
    """
    with (
        preparing_build(root, pipeline, partition) as before,
        reading_inputs(root, pipeline, partition, table, before) as inputs,
        closing(CurrentRequests(root, pipeline, inputs)) as requests,
    ):
        yield requests
