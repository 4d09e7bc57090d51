"""Take the digests of rows that are as they were from the last submission: only other rows are rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import HeaderSets
from batch_assets.core.requests.newest_submission import NewestSubmission
from batch_assets.core.requests.row_hasher import RowHasher, row_context
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_BYTES, Digests
from batch_assets.core.store.row_hashes import read_row_hashes
from batch_assets.core.template.row_templates import RowTemplates


@dataclass(frozen=True)
class HashedRows:
    """The hashes of some rows, and the digests of those that are known. All arrays have the shape (n,).

    Attributes:
        hashes: The hash of each row; S16.
        has_hash: Whether the row has a hash; bool.
        digests: The digest of the row's request; S16.
        is_known: Whether that digest is known; bool.
    """

    hashes: Digests
    has_hash: NDArray[np.bool_]
    digests: Digests
    is_known: NDArray[np.bool_]


class KnownRows:
    """The rows of the last submission of a partition, by what their requests were rendered from.

    Args:
        root: The root.
        pipeline: The pipeline.
        newest: The last submission; `None` without one.
        dataset: The dataset.
        templates: The templates, compiled for the dataset.
        headers: The header sets of the requests, before any row was rendered.

    Attributes:
        context: See `row_context`; `None` if every row is rendered each time.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        newest: NewestSubmission | None,
        dataset: Dataset,
        templates: RowTemplates,
        headers: HeaderSets,
    ) -> None:
        self.context = row_context(pipeline, dataset, templates, headers)
        self._hasher = RowHasher(self.context, templates) if self.context is not None else None
        self._known = None
        if newest is not None and self.context is not None:
            record = newest.record
            folder = submission_parts(record.pipeline, record.partition, record.id)
            self._known = read_row_hashes(root.storage, folder, self.context)

    def look_up(self, rows: Rows) -> HashedRows:
        """Hash rows and look up their digests. See `RowHasher.hashes` for rejects."""
        if self._hasher is None:
            return _without_hashes(len(rows.table))
        hashes, has_hash = self._hasher.hashes(rows)
        if self._known is None:
            return HashedRows(hashes, has_hash, np.zeros_like(hashes), np.zeros(len(hashes), bool))
        digests, is_known = self._known.digests_of(hashes)
        return HashedRows(hashes, has_hash, digests, is_known & has_hash)


def _without_hashes(count: int) -> HashedRows:
    unknown, no_digests = np.zeros(count, bool), np.zeros(count, f"S{DIGEST_BYTES}")
    return HashedRows(no_digests, unknown, no_digests, unknown)
