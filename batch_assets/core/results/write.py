"""The third stage, second half: request index + responses in force -> the table that users read.

Results are a function of the submission and the response store, never of the dataset or the YAML as they
are now; where a pipeline's own code makes columns of answers, of that code as well. Rows stand in the dataset's
order; memory follows slices of it, not the whole.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.answers import Answers
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import leases, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.results.join import Join
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.root import Root
from batch_assets.core.store.refreshes import refreshes_of, untried_of

# Freed memory is given back after as many slices.
_SLICES_A_RELEASE = 2


def write_results(
    root: Root, pipeline: str, partition: str = "", *, answers: Answers | None = None
) -> ResultsReport | None:
    """Joins the newest submission's index with the responses in force and replaces the table.

    Args:
        answers: of a pipeline whose own code makes columns of answers; otherwise the submission says how.

    Returns:
        None when nothing was ever written for the partition.
    """
    with leases.hold(root.ledger, f"results:{pipeline}:{partition}", wait=leases.PATIENCE) as lease:
        with root.ledger.read() as tx:
            submission = submissions.newest(tx, pipeline, partition)
            holding = submissions.holding(tx, pipeline)
            refreshes = refreshes_of(tx, pipeline)
            untried = untried_of(tx, submission) if submission is not None else {}
            seq = tx.last_seq()
        if submission is None:
            return None
        target = root.storage.path(*results_parts(pipeline, partition))
        uri = root.storage.uri(*results_parts(pipeline, partition))
        report = ResultsReport(submission.id, uri, left_out=submission.left_out)
        root.storage.remove_leftovers(*results_parts(pipeline, partition)[:-1])
        with root.storage.scratch_file(target) as scratch:
            join = Join(root, submission, report, holding, refreshes, untried, answers)
            with TableWriter(scratch, join.schema) as writer:
                for number, table in enumerate(join.tables()):
                    lease.check()
                    writer.write(table)
                    if number % _SLICES_A_RELEASE == 0:
                        release_memory()
            report.schema = join.schema
            with root.ledger.read() as tx:
                in_force = submissions.newest(tx, pipeline, partition)
            if in_force is None or in_force.id != submission.id:
                return report  # a newer submission is in force: its own join follows
            if in_force.is_canceled != submission.is_canceled:
                return report  # canceled meanwhile: the next join says so of rows that nobody will ask
            lease.check()
            waits = submission.fresh_after is not None and report.counts["pending"] > 0
            report.held_back = waits and _is_complete(root, submission)
            if not report.held_back:
                root.storage.publish(scratch, target)
        with root.ledger.write() as tx:
            if not lease.is_ours(tx):
                # Frozen on the way, this process may just have put an old table over a newer one.
                submissions.join_anew(tx, submission.id)
                return report
            if submissions.by_id(tx, submission.id).is_canceled != submission.is_canceled:
                return report
            counts = dict(report.counts)
            report.final = submissions.joined(tx, submission.id, seq, counts, report.ask_again, join.waits)
        return report


def _is_complete(root: Root, submission: Submission) -> bool:
    """Whether the table that users read now has no row that waits."""
    parts = results_parts(submission.pipeline, submission.partition)
    if not root.storage.exists(*parts):
        return False
    try:
        with pq.ParquetFile(root.storage.open(*parts)) as table:
            slices = table.iter_batches(columns=["result_type"], use_threads=False)
            return not any("pending" in rows.column(0).unique().to_pylist() for rows in slices)
    except (pa.ArrowException, OSError, KeyError):
        return False  # it is written anew
