"""The requests of a slice of rows: known from the last submission, or rendered and written if they are new."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.dataset.rows import Rows
from batch_assets.core.requests.known_rows import KnownRows
from batch_assets.core.requests.priority_order import highest
from batch_assets.core.requests.request_sample import RequestSample
from batch_assets.core.requests.row_priorities import Priorities, PrioritiesAt, RowPriorities
from batch_assets.core.requests.row_renderer import RenderedGroup, RowRenderer
from batch_assets.core.requests.selection import Selection, kinds_of
from batch_assets.core.requests.submission import NewSubmission, Rejects, RenderedRows
from batch_assets.core.store.digests import Digests, pack


class RowRequests:
    """Finds the requests of rows, slice by slice.

    Args:
        known: The rows of the last submission.
        renderer: Renders the other rows.
        selection: Decides which requests are sent.
        submission: Takes the requests that are sent.
        priorities: Finds the priority of rows; `None` without one.

    Attributes:
        written: The requests that are sent.
        beyond: Those beyond the limit.
    """

    def __init__(
        self,
        known: KnownRows,
        renderer: RowRenderer,
        selection: Selection,
        submission: NewSubmission,
        priorities: RowPriorities | None = None,
    ) -> None:
        self._known, self._renderer, self._selection = known, renderer, selection
        self._submission, self._priorities = submission, priorities
        self.written, self.beyond = RequestSample(), RequestSample()

    def of(self, rows: Rows, keys: list[Any]) -> RenderedRows:
        """Return the digests of rows: those of the last submission, or those of the rows rendered now.

        A row is rendered unless its request is known and need not be sent.
        """
        hashed = self._known.look_up(rows)
        digests, known = hashed.digests.copy(), np.flatnonzero(hashed.is_known)
        if len(known):
            known = known[self._selection.keep(digests[known], self._submission.report)]
        positions = np.delete(np.arange(len(keys)), known)
        rejects, left_out = self._render(rows, positions, keys, digests)
        return RenderedRows(rows.table, digests, rejects, left_out, hashed.hashes, hashed.has_hash)

    def _render(
        self, rows: Rows, positions: NDArray[np.intp], keys: list[Any], digests: Digests
    ) -> tuple[Rejects, Digests]:
        """Render some rows of a slice and write the requests that are new.

        Args:
            rows: The slice of n rows.
            positions: The positions of the rows to render; intp.
            keys: The row key of each row of the slice.
            digests: The digest of each row of the slice: S16, shape (n,). Those of rendered rows are filled in.

        Returns:
            The rejects by position, and the digests of the requests that the limit leaves out.
        """
        self._submission.report.rendered += len(positions)
        is_whole = len(positions) == len(keys)
        part = rows if is_whole else rows.at(positions)
        rejects: Rejects = {}
        left_out: list[bytes] = []
        priorities_at: PrioritiesAt | None = None
        if self._priorities is not None and len(positions):
            priorities_at = self._priorities.of(part, [keys[position] for position in positions.tolist()])
        for group in self._renderer.groups(part, rejects) if len(positions) else ():
            at = positions[list(group.positions)]
            digests[at] = pack(group.digests)
            priorities = priorities_at(group.positions) if priorities_at is not None else None
            left_out += self._write_new(group, [keys[position] for position in at.tolist()], priorities)
        if not is_whole:
            rejects = {int(positions[position]): reason for position, reason in rejects.items()}
        return rejects, pack(left_out)

    def _write_new(self, group: RenderedGroup, keys: list[Any], priorities: Priorities | None) -> list[bytes]:
        """Write the requests of some rows that are neither answered, in flight nor given up.

        Args:
            group: The requests.
            keys: The row key of each.
            priorities: The priority of each, shape (n,); `None` without one.

        Returns:
            The digests of the requests beyond the limit.
        """
        if not group.positions:
            return []
        packed = pack(group.digests)
        chosen, attempts, beyond = self._selection.choose(packed, self._submission.report)
        if priorities is not None:
            priorities = highest(packed, priorities)
            is_later = ~np.isin(packed, packed[chosen])
            self._submission.note(packed[is_later], priorities[is_later])
        by_row = self._renderer.headers.by_row
        kinds = kinds_of(attempts, [group.header_sets[at] for at in chosen.tolist()] if by_row else None)
        for kind in np.unique(kinds).tolist():
            positions = chosen[kinds == kind]
            params = [group.params[at] for at in positions.tolist()]
            self.written.add(packed[positions], params)
            own_keys = [keys[at] for at in positions.tolist()]
            ranks = priorities[positions] if priorities is not None else None
            self._submission.add(kind, own_keys, packed[positions], params, ranks)
        self.beyond.add(packed[beyond], [group.params[at] for at in beyond.tolist()])
        return [group.digests[at] for at in beyond.tolist()]
