"""Find answered rows that render differently since an upgrade, so that it does not buy their answers again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.dataset.csv_types import fitting
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import FinalError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import AcceptRendering
from batch_assets.core.requests.answer_costs import AnswerCosts
from batch_assets.core.requests.newest_submission import NewestSubmission
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates
from batch_assets.core.requests.selection import Selection
from batch_assets.core.root import Root
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.digests import Digests, pack
from batch_assets.core.store.erased import ErasedRecord, ErasedRows
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.text import about_dollars, count

_SHOWN = 3


class RenderingChangedError(FinalError):
    """Answered rows would render differently since an upgrade. Nothing was written or sent."""


def check_rendering(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    newest: NewestSubmission | None,
    dataset: Dataset,
    templates: RowTemplates,
    again: AskAgain,
) -> None:
    """Check that an upgrade does not send answered rows again, unless the user accepts that.

    It reads the whole dataset, but only if an earlier version wrote the partition's newest submission.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        newest: The partition's newest submission; `None` without one.
        dataset: The rows.
        templates: The templates, compiled for the dataset.
        again: What the user wants to send again.

    Raises:
        RenderingChangedError: When it would. Says how many rows, and the estimated cost.
    """
    sends_all = again.refresh and again.limit is None
    if again.accept_rendering or sends_all:
        return
    if newest is None:
        return
    before = _rendering_of(newest)
    if before >= CURRENT:
        return
    earlier = RowRenderer(
        pipeline, dataset, row_templates(pipeline, dataset, Rendering(before)), Rendering(before)
    )
    change = _Change(
        earlier,
        RowRenderer(pipeline, dataset, templates),
        Selection(root, pipeline, partition, newest, NOTHING_AGAIN),
        ErasedRows(ErasedRecord.read(root.storage, pipeline.name), dataset.key, dataset.schema.names),
        {mixed.column: mixed.type for mixed in dataset.mixed_columns if mixed.column in earlier.reads},
    )
    change.read(dataset)
    release_memory()
    if change.rows:
        raise RenderingChangedError(
            f"{dataset.source}: {change.as_text}", remedy=AcceptRendering(pipeline.name, partition)
        )


def _rendering_of(newest: NewestSubmission) -> int:
    """The version of a submission's rendering."""
    if newest.manifest is None:
        return Rendering.STORED  # it may be of any version
    return newest.manifest.rendering or Rendering.STORED


@dataclass
class _Change:
    """The answered rows that render differently.

    Attributes:
        before: Renders rows as the newest submission did.
        now: Renders rows as they are rendered now.
        selection: What is answered and in flight.
        erased: Hides the erased rows.
        mixed: The columns that are text because of a few values, with the types that they have without these. The
            newest submission may have been built before these values came, and has no kinds on record.
        rows: The number of rows that are answered or in flight as they were rendered before, and not as now.
        requests: The number of distinct requests that they would become.
        examples: The row keys of the first of these rows.
    """

    before: RowRenderer
    now: RowRenderer
    selection: Selection
    erased: ErasedRows
    mixed: dict[str, pa.DataType]
    rows: int = 0
    requests: int = 0
    examples: list[Any] = field(default_factory=list)
    _seen: DigestSet = field(default_factory=DigestSet)
    _answer_rows: list[NDArray[np.int64]] = field(default_factory=list)

    def read(self, dataset: Dataset) -> None:
        """Render all rows of the dataset in both versions."""
        names = dict.fromkeys([*self.erased.reads, *self.before.reads, *self.now.reads])
        for rows in dataset.rows(list(names)):
            self.erased.hide(rows)
            self._add(rows, rows.stored_values(dataset.key))

    def _add(self, rows: Rows, keys: list[Any]) -> None:
        new = {position: digest for position, digest, _, _ in self.now.render(rows, {})}
        lost: set[int] = set()
        for rows_then in [rows, _without_odd_values(rows, self.mixed)] if self.mixed else [rows]:
            old = {position: digest for position, digest, _, _ in self.before.render(rows_then, {})}
            changed = [at for at, digest in old.items() if new.get(at) != digest and at not in lost]
            if changed:
                lost |= self._count(changed, old, new, keys)

    def _count(
        self, changed: list[int], old: dict[int, bytes], new: dict[int, bytes], keys: list[Any]
    ) -> set[int]:
        """Count the changed rows whose answers would be lost.

        Args:
            changed: The positions of rows that render differently.
            old: The digest of each row that was rendered before, by position.
            new: The digest of each row that is rendered now, by position.
            keys: The row keys.

        Returns:
            The positions of the rows that were counted.
        """
        old_digests = pack([old[position] for position in changed])
        lost = self._is_paid(old_digests)
        renders = np.array([position in new for position in changed])
        new_digests = pack([new.get(position, old[position]) for position in changed])
        lost &= ~(renders & self._is_paid(new_digests))
        self.rows += int(lost.sum())
        wanted = np.flatnonzero(lost)
        self.examples += [keys[changed[at]] for at in wanted[: _SHOWN - len(self.examples)].tolist()]
        self._add_requests(old_digests[lost & renders], new_digests[lost & renders])
        return {changed[at] for at in wanted.tolist()}

    def _is_paid(self, digests: Digests) -> NDArray[np.bool_]:
        """Whether each request is answered or in flight: bool, shape (n,)."""
        is_answered = self.selection.outcomes.for_digests(digests).is_answered
        is_paid: NDArray[np.bool_] = is_answered | self.selection.is_in_flight(digests)
        return is_paid

    def _add_requests(self, old: Digests, new: Digests) -> None:
        distinct, first = np.unique(new, return_index=True)
        unseen = ~self._seen.contains(distinct)
        self._seen.add(distinct[unseen])
        self.requests += int(unseen.sum())
        answer_rows = self.selection.outcomes.for_digests(old[first[unseen]]).row
        self._answer_rows.append(answer_rows[answer_rows >= 0])

    @property
    def as_text(self) -> str:
        """What would change, and what that costs."""
        examples = ", ".join(map(repr, self.examples)) + (" and so on" if self.rows > _SHOWN else "")
        return (
            f"{count(self.rows, 'row that is', 'rows that are')} answered or in flight would render differently, "
            f"because this version prints some values in another way{self._columns()}: {examples}. That would be "
            f"{self._consequence()}. Nothing was sent"
        )

    def _columns(self) -> str:
        if not self.mixed:
            return ""
        names = ", ".join(map(repr, self.mixed))
        return f" or because a few new values make text of a column ({names}; see dataset.types)"

    def _consequence(self) -> str:
        if not self.requests:
            return "no request, because the rows would be rejected"
        costs = AnswerCosts.read(self.selection.outcomes.files, np.sort(np.concatenate(self._answer_rows)))
        cost = "cost unknown"
        if costs.priced:  # requests without a price, or not answered yet, cost as much as the others
            cost = about_dollars(costs.cost_usd * self.requests / costs.priced)
        return f"{count(self.requests, 'request')}, {cost}"


def _without_odd_values(rows: Rows, columns: Mapping[str, pa.DataType]) -> Rows:
    """Return rows as they were read when the columns did not yet have values that make text of them.

    Args:
        rows: The rows.
        columns: The types of the columns without these values.
    """
    table = rows.table
    for name, type_ in columns.items():
        texts = table.column(name)
        if pa.types.is_string(texts.type):
            fits = pc.fill_null(fitting(texts, type_), False)
            typed = pc.if_else(fits, texts, None).cast(type_)
            table = table.set_column(table.schema.get_field_index(name), pa.field(name, type_), typed)
    own = {name: values for name, values in rows.own.items() if name not in columns}
    return replace(rows, table=table, own=own, rejects=dict(rows.rejects))
