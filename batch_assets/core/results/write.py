"""The third stage, second half: write the results table from the request index and the responses in force.

Results depend on the submission and the response store, never on the dataset or the YAML as they are now. If a
pipeline's own code makes columns of answers, they depend on that code as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.result_types import UNCHANGING
from batch_assets.core.io.layout import former_results_parts, results_parts, waiting_parts
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.io.slices import SLICE_BYTES
from batch_assets.core.ledger import Lease, joins, leases, submissions
from batch_assets.core.ledger.records import LastJoin, RequestFile, Submission
from batch_assets.core.prices.prices import Prices
from batch_assets.core.results.cache_savings import saved_by_cache
from batch_assets.core.results.former_tables import move_former
from batch_assets.core.results.join import ResultsJoin
from batch_assets.core.results.joined_table import JoinedTable
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.value_counts import no_values
from batch_assets.core.root import Root
from batch_assets.core.store.former_shapes import is_former
from batch_assets.core.store.join_inputs import join_inputs
from batch_assets.core.store.outcomes import Refreshes, Untried
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.response_listing import response_versions, versions_digest
from batch_assets.core.store.result_table import completeness, is_complete

# Freed memory is returned to the system after this many bytes of the table.
_RELEASE_BYTES = 2 * SLICE_BYTES


def write_results(
    root: Root, pipeline: str, partition: str = "", *, answers: Answers | None = None
) -> ResultsReport | None:
    """Join the newest submission's index with the responses in force and replace the table.

    A complete table is replaced by a complete one only. Until then, the new one is the waiting table. A complete
    table whose inputs are as they were at its join is left as it is.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        answers: How the pipeline's own code makes columns of answers; `None` to follow the submission's manifest.

    Returns:
        `None` if nothing was ever written for the partition.
    """
    former = is_former(root, pipeline, partition)
    parts = _table_parts(pipeline, partition, former=former)
    name = f"results:{pipeline}:{partition}"
    work = f"the results of {pipeline}{f' [{partition}]' if partition else ''}"
    with leases.hold(root.ledger, name, wait=leases.PATIENCE, work=work, pipeline=pipeline) as lease:
        before = _before_join(root, pipeline, partition)
        if before is None:
            return None
        submission = before.submission
        may_be_skipped = answers is None and not former and not before.is_waiting
        if may_be_skipped and (unchanged := _unchanged(root, lease, before, parts)) is not None:
            return unchanged
        target, version = root.storage.path(*parts), None
        root.storage.remove_leftovers(*parts[:-1])
        with root.storage.scratch_file(target) as scratch:
            # The table in place matters only if the new one is not complete, as files in flight make likely.
            join, was_complete = root.storage.both(
                lambda: ResultsJoin(
                    root, submission, before.files_in_flight, before.refreshes, before.untried, answers
                ),
                lambda: is_complete(root.storage, parts) if before.is_waiting else None,
            )
            report = _write(scratch, join, submission, root.storage.uri(*parts), lease, root.settings.prices)
            if not _is_in_force(root, submission):
                return report  # the next join reports what became of the rows
            if not report.is_complete:
                report.held_back = is_complete(root.storage, parts) if was_complete is None else was_complete
            lease.check()
            if report.held_back and not former:
                _publish_waiting(root, scratch, report, submission)
            elif not report.held_back:
                root.storage.publish(scratch, target)
                problems, version = root.storage.both(
                    lambda: [] if former else _tidied(root, pipeline, partition, report),
                    lambda: root.storage.version(*parts) if may_be_skipped else None,
                )
                report.problems += problems
        last = None
        is_settled = report.counts.keys() <= UNCHANGING and not report.problems and not report.held_back
        if join.versions is not None and is_settled and version is not None:
            last = LastJoin(before.inputs(join.versions), JoinedTable.of(version, report).model_dump_json())
        report.final = _record(root, lease, submission, before.seq, report, join.waits, last)
        return report


@dataclass(frozen=True)
class _BeforeJoin:
    """What the ledger knows before a join.

    Attributes:
        submission: The submission in force.
        files_in_flight: The files of the pipeline whose requests may still be answered.
        refreshes: See `refreshes_of`.
        untried: See `untried_of`.
        is_waiting: Whether files are in flight that the submission waits on.
        seq: The number in the history of the last collection of a file that it waits on.
    """

    submission: Submission
    files_in_flight: list[RequestFile]
    refreshes: Refreshes
    untried: Untried
    is_waiting: bool
    seq: int

    def inputs(self, versions: str) -> str:
        """Return what shows whether another join would make the same table."""
        return join_inputs(versions, self.submission, self.refreshes, self.untried)


def _before_join(root: Root, pipeline: str, partition: str) -> _BeforeJoin | None:
    """Read it in one transaction; `None` if nothing was ever written for the partition."""
    with root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline, partition)
        if submission is None:
            return None
        files_in_flight = submissions.files_in_flight(tx, pipeline)
        refreshes, untried = refreshes_of(tx, pipeline), untried_of(tx, submission)
        waits_for = submissions.waited_on(tx, submission.id)
    if submission.is_canceled:  # it sends none of them, and takes the answers if another partition does
        files_in_flight = [file for file in files_in_flight if not file.state.unsent]
    is_waiting = any(file.state.in_flight for file in waits_for)
    # The last one as of this transaction. Other pipelines' numbers in the history do not come in order.
    seq = max((file.collected_seq or 0 for file in waits_for), default=0)
    return _BeforeJoin(submission, files_in_flight, refreshes, untried, is_waiting, seq)


def _table_parts(pipeline: str, partition: str, *, former: bool) -> tuple[str, ...]:
    """Return the path of a partition's table.

    Args:
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        former: It is for a late answer to a submission from before the pipeline got partitions, or lost them.
    """
    parts = results_parts(pipeline, partition)
    return former_results_parts(pipeline, partitioned=bool(partition)) + parts[2:] if former else parts


def _publish_waiting(root: Root, scratch: Path, report: ResultsReport, submission: Submission) -> None:
    """Publish a table that is not complete outside of the folder that users read."""
    parts = waiting_parts(submission.pipeline, submission.partition)
    root.storage.publish(scratch, root.storage.path(*parts))
    report.uri = root.storage.uri(*parts)


def _tidied(root: Root, pipeline: str, partition: str, report: ResultsReport) -> list[str]:
    """Remove what a new table in its place makes superfluous, and return texts about what was moved."""
    waiting = waiting_parts(pipeline, partition)

    def remove_waiting() -> None:
        if report.is_complete and root.storage.exists(*waiting):
            root.storage.remove(*waiting)

    move = partial(move_former, root, pipeline, partition)
    _, moved = root.storage.both(remove_waiting, move)
    return moved


def _last_join(root: Root, submission: Submission) -> LastJoin | None:
    """Return what is recorded about the last join of a complete table; `None` if the table is not complete."""
    if submission.final_at is None:
        return None
    with root.ledger.read() as tx:
        return joins.last_join(tx, submission.id)


def _unchanged(root: Root, lease: Lease, before: _BeforeJoin, parts: tuple[str, ...]) -> ResultsReport | None:
    """Return the report of the table in place, if the last join wrote it from the same inputs; else `None`.

    Args:
        root: The root.
        lease: The lease on the table.
        before: What the ledger knows.
        parts: The path of the table.
    """
    submission = before.submission
    if (last := _last_join(root, submission)) is None:
        return None
    versions = versions_digest(response_versions(root.storage, submission.pipeline))
    if last.inputs != before.inputs(versions) or (joined := JoinedTable.read(last.table)) is None:
        return None
    report = joined.report_of(submission, root.storage, parts)
    if report is not None:
        with root.ledger.write(submission.pipeline) as tx:
            if not lease.is_ours(tx) or not joins.joined_as_before(tx, submission, before.seq):
                return None
    return report


def _write(
    scratch: Path, join: ResultsJoin, submission: Submission, uri: str, lease: Lease, prices: Prices
) -> ResultsReport:
    """Write the table into a scratch file.

    Args:
        scratch: The path of the scratch file.
        join: The join that makes the table.
        submission: The submission whose table it is.
        uri: Where the table will be.
        lease: The lease on the table.
        prices: The prices in force.
    """
    report = ResultsReport(
        submission.id, uri, join.schema, values=no_values(join.classes), left_out=submission.left_out
    )
    with TableWriter(scratch, join.schema, gather=True) as writer:
        unreleased = _RELEASE_BYTES
        for joined in join.slices():
            lease.check()
            writer.write(joined.table)
            report.add(joined)
            report.tally.saved_cache += saved_by_cache(joined.table, prices)
            unreleased += joined.table.nbytes
            if unreleased >= _RELEASE_BYTES:
                release_memory()
                unreleased = 0
        writer.note(completeness(is_complete=report.is_complete))
    report.problems += join.problems
    return report


def _is_in_force(root: Root, submission: Submission) -> bool:
    """Whether the submission is still the newest, and still canceled or not canceled."""
    with root.ledger.read() as tx:
        newest = submissions.newest(tx, submission.pipeline, submission.partition)
    return newest is not None and (newest.id, newest.is_canceled) == (submission.id, submission.is_canceled)


def _record(
    root: Root,
    lease: Lease,
    submission: Submission,
    seq: int,
    report: ResultsReport,
    waits: list[str],
    last: LastJoin | None,
) -> bool:
    """Record the join, unless another process took over or the submission was canceled meanwhile.

    Args:
        root: The root.
        lease: The lease on the table.
        submission: The submission as it was when the join began.
        seq: The number in the history of the last collection, at that time, of a file that it waits on.
        report: What the table contains.
        waits: See `ResultsJoin.waits`.
        last: What a later join has to know to be skipped; `None` if it must not be.

    Returns:
        Whether every row has its final type.
    """
    with root.ledger.write(submission.pipeline) as tx:
        if not lease.is_ours(tx):
            # This process was frozen, and may have replaced a newer table with an old one.
            joins.join_again(tx, submission.id)
            return False
        if submissions.by_id(tx, submission.id).is_canceled != submission.is_canceled:
            return False
        counts = dict(report.counts)
        return joins.joined(
            tx,
            submission.id,
            seq,
            counts,
            report.ask_again,
            waits,
            held_back=report.held_back,
            unusable=report.unusable,
            skippable=last,
        )
