"""The state of pipelines as lines of text, as `status` prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_assets.cli import text
from batch_assets.cli.status_errors import errors_of
from batch_assets.core.quoting import printable
from batch_assets.core.text import count, counts

if TYPE_CHECKING:
    from batch_assets.core.ledger import Transaction
    from batch_assets.core.ledger.records import Submission
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.root import Root

# Number of batches that are listed; the others are counted.
_LISTED = 20
# Number of partitions up to which each is shown with its cost. With more, only `status NAME` shows the cost.
_WITH_COST = 50
# Number of partitions of a pipeline up to which each is shown. More are summed up.
EACH = 50


@dataclass
class CostTexts:
    """What tables cost as text. A table is read again only after another join."""

    root: Root
    _is_emulated: bool | None = None
    _read: dict[tuple[str, float | None], str | None] = field(default_factory=dict)

    def of(self, tx: Transaction, submission: Submission) -> str | None:
        """Return what the answers of a submission cost so far; `None` before the first are collected."""
        from batch_assets.cli.progress_lines import cost_as_text
        from batch_assets.core.ledger.endpoint import is_emulated

        if self._is_emulated is None:
            self._is_emulated = is_emulated(tx)
        key = submission.id, submission.joined_at
        if key not in self._read:
            self._read[key] = cost_as_text(self.root, submission, is_emulated=self._is_emulated)
        return self._read[key]

    def missing(self, submission: Submission) -> str | None:
        """Return a text if the table that a submission wrote is not there; `None` if it is, or it wrote none."""
        from batch_assets.core.store.result_table import table_of

        storage, table = self.root.storage, table_of(submission)
        if not submission.count_map or storage.is_file(*table):
            return None
        return f"there is no table {storage.uri(*table)}: if it was removed, the next run writes it again"


def by_pipeline(snapshots: Sequence[Snapshot]) -> dict[str, list[Snapshot]]:
    """Return snapshots by pipeline, in their order."""
    grouped: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        grouped.setdefault(snapshot.submission.pipeline, []).append(snapshot)
    return grouped


def status_lines(
    tx: Transaction, snapshots: Sequence[Snapshot], costs: CostTexts, *, everything: bool, is_named: bool
) -> Iterator[str]:
    """Yield all partitions together, pipelines with many as a summary, and each partition of the others.

    Args:
        tx: A transaction of the ledger.
        snapshots: The submissions.
        costs: Reads what the tables cost.
        everything: Show each partition of all pipelines.
        is_named: The user named the pipeline.
    """
    from batch_assets.cli.status_summary import heading, summary_lines, total_line

    grouped = by_pipeline(snapshots)
    if len(snapshots) > 1:
        yield _line("total", total_line(snapshots), indent="")
    for of_pipeline in grouped.values():
        if len(of_pipeline) > EACH and not everything:
            yield ""
            yield heading(of_pipeline)
            yield from (_line(label, value) for label, value in summary_lines(of_pipeline))
    with_cost = is_named or len(snapshots) <= _WITH_COST
    for snapshot in snapshots:
        if everything or len(grouped[snapshot.submission.pipeline]) <= EACH:
            yield ""
            yield from _partition_lines(tx, snapshot, costs if with_cost else None)


def _partition_lines(tx: Transaction, snapshot: Snapshot, costs: CostTexts | None) -> Iterator[str]:
    """Yield the lines about a submission.

    Args:
        tx: A transaction of the ledger.
        snapshot: The submission.
        costs: Reads the cost from the table. None to leave the cost out.
    """
    from batch_assets.cli.progress_lines import batches_as_text, progress_lines
    from batch_assets.cli.what_next import waits_for
    from batch_assets.core.answers.result_types import results_as_text

    submission, files, batches = snapshot.submission, snapshot.files, snapshot.batches
    yield text.partition_name(submission.pipeline, submission.partition)
    yield _line("submission", f"{submission.id}, {text.ago(tx.now, submission.created_at)}")
    rejected = f", {submission.rejected:,} rejected" if submission.rejected else ""
    rows = count(submission.rows, "row") + rejected
    yield _line("rows", f"{rows}; {count(submission.requests, 'distinct request')}")
    for label, value in progress_lines(snapshot):
        yield _line(label, value)
    yield _line("files", counts(Counter(file.state for file in files), nothing="none: no request had to be sent"))
    states = counts(Counter(batch.state for batch in batches))
    yield _line("batches", batches_as_text(batches, states, tx.now))
    yield from _running(snapshot)
    if submission.count_map:
        results = results_as_text(submission.count_map, submission.unusable or 0)
        waits = "; they wait in results_next, and the complete table stays" if submission.held_back else ""
        yield _line("results", f"{results}, {text.ago(tx.now, submission.joined_at)}{waits}")
    if costs is not None and (cost := costs.of(tx, submission)) is not None:
        yield _line("cost", cost)
    yield _line("waits for", waits_for(snapshot))
    if costs is not None and (missing := costs.missing(submission)) is not None:
        yield _line("error", printable(missing))
    for error in errors_of(tx, snapshot):
        yield _line("error", printable(error))


def _line(label: str, value: str, indent: str = "  ") -> str:
    return f"{indent}{label:<11} {value}"


def _running(snapshot: Snapshot) -> Iterator[str]:
    from batch_assets.cli.describe import describe_batch

    uncollected = snapshot.uncollected
    for batch in uncollected[:_LISTED]:
        yield _line("", f"{batch.id}  {count(batch.requests, 'request')}, {describe_batch(batch, snapshot.now)}")
    if len(uncollected) > _LISTED:
        yield _line("", f"… and {len(uncollected) - _LISTED:,} more")
