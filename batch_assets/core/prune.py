"""Prune old answers from the response store of a pipeline: their texts go, and what they cost stays.

The row of an answer stays in its response file, with its digest, tokens and costs. It is `canceled` with the
reason `pruned`. So nothing looks for the batch again, a lost ledger is rebuilt as before, and what was spent stays
as it is. A request whose only answer was pruned is sent again if a row asks for it, as any canceled one. Each file
is replaced atomically, so a killed run is simply repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import BatchAssetsError, ErrorType
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Lease, leases, submissions
from batch_assets.core.ledger.examinations import with_table
from batch_assets.core.ledger.known_files import pipelines
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.root import Root
from batch_assets.core.store.kept_usage import usage_in
from batch_assets.core.store.missing_responses import with_readable_responses
from batch_assets.core.store.outcomes import Outcomes
from batch_assets.core.store.packed_responses import SUCCEEDED
from batch_assets.core.store.pipeline_outcomes import digests_of_rows, drop_kept
from batch_assets.core.store.refreshes import outcomes_of
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.response_cost import ResponseCost
from batch_assets.core.store.responses import ResponseFiles, ended_at_of, open_responses, reading_responses
from batch_assets.core.store.rewriting import rewrite_file
from batch_assets.core.text import nothing_submitted

_EMPTIED = ("response_text", "message_id")
_TEXTS = ("response_text", "response_json")
_WHY = "the answer was pruned from the response store"


class PruneError(BatchAssetsError):
    """Answers cannot be pruned. Nothing was changed."""


@dataclass
class PruneReport:
    """What a prune removes, or would remove.

    Attributes:
        files: The number of response files with such answers.
        answers: The number of answers.
        needed: The number of these that are in a current table.
        bytes: About how many bytes their texts take in the files.
        again: The number of answers that are the only ones to their request, so that asking again would cost.
        picodollars: What these cost, with the earlier answers of their chains, by the price list when they were
            stored.
        unpriced: The number of these whose cost is unknown.
        kept: The number of old answers that stay because a current table has them.
    """

    files: int = 0
    answers: int = 0
    needed: int = 0
    bytes: int = 0
    again: int = 0
    picodollars: int = 0
    unpriced: int = 0
    kept: int = 0


def prune(
    root: Root, pipeline: str, seconds: float, *, in_force: bool = False, is_dry: bool = True
) -> PruneReport:
    """Prune the answers of batches that ended some time ago. Repeating it changes nothing.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        seconds: The age of the batches, by when they ended.
        in_force: Prune also the answers that a current table has. The next run asks for them again.
        is_dry: Only report what would be pruned.

    Raises:
        PruneError: When nothing was submitted for the pipeline.
        BusyError: When another process works on the pipeline's requests for too long.
        DamagedFileError: When a response file or an index cannot be read.
        MissingFileError: When an index is missing, so that it is unknown which answers its table needs.
    """
    with hold_pipeline(root.ledger, pipeline, wait=leases.PATIENCE) as lease:
        root.catch_up(pipeline, lease=lease)
        with root.ledger.read() as tx:
            newest = submissions.all_newest(tx, pipeline)
            # While a table waits for answers, users read the one of an earlier submission.
            current = {each.id: each for each in [*newest, *with_table(tx, pipeline)]}.values()
            before = tx.now - seconds
        if not newest:
            with root.ledger.read() as tx:
                raise PruneError(nothing_submitted(pipeline, root.storage.url, pipelines(tx)))
        outcomes, _ = with_readable_responses(root, lambda: outcomes_of(root, pipeline))
        is_only = _answers_in_force(outcomes)
        is_needed = np.zeros(len(is_only), bool)
        for submission in current:
            index = RequestIndex(root.storage, pipeline, submission.partition, submission.id)
            for rows in index.slices([DIGEST]):
                row = outcomes.for_digests(digests_of_rows(rows)).row
                is_needed[row[row >= 0]] = True
        if (chains := outcomes.chains) is not None:  # a table sums up the tokens and costs of its chains
            is_needed[chains.earlier[is_needed[chains.earlier_of]]] = True
        is_paid_again = is_only.copy()
        if chains is not None:  # asking again repeats the whole chain
            kept = np.zeros(len(is_only), bool) if in_force else is_needed
            goes = _ended_before(outcomes.files, chains.earlier_of, before) & ~kept[chains.earlier_of]
            is_paid_again[chains.earlier[goes]] = True
        report = PruneReport()
        for number, name in enumerate(outcomes.files.names):
            first = outcomes.files.first_row(number)
            part = slice(first, first + sum(outcomes.files.group_rows[number]))
            plan = _Plan(is_needed[part], is_only[part], is_paid_again[part], before, in_force)
            if plan.counts(root, pipeline, name, report) and not is_dry:
                _rewrite(root, pipeline, name, plan, lease)
        if report.answers and not is_dry:
            drop_kept(root, pipeline)
        return report


def _ended_before(files: ResponseFiles, rows: NDArray[np.int32], before: float) -> NDArray[np.bool_]:
    """Return which rows are of batches that ended before a time: bool, in the shape of `rows`."""
    numbers = files.number_of(rows)
    is_old = np.zeros(len(files.names), bool)
    for number in np.unique(numbers).tolist():
        with files.open(number) as file:
            is_old[number] = ended_at_of(file) < before
    return is_old[numbers]


def _answers_in_force(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Return for each row of the response files whether it is the answer in force of its request."""
    is_only = np.zeros(outcomes.files.rows, bool)
    is_only[outcomes.rows_of(SUCCEEDED)] = True
    return is_only


@dataclass(frozen=True)
class _Plan:
    """What is pruned in one response file of n rows.

    Attributes:
        is_needed: Whether each row is in a current table; bool, shape (n,).
        is_only: Whether each row is the answer in force of its request; bool, shape (n,).
        is_paid_again: Whether asking for its request again would pay for each row again; bool, shape (n,).
        before: Batches that ended before this time count as old, in seconds since 1970.
        in_force: See `prune`.
    """

    is_needed: NDArray[np.bool_]
    is_only: NDArray[np.bool_]
    is_paid_again: NDArray[np.bool_]
    before: float
    in_force: bool

    def counts(self, root: Root, pipeline: str, name: ResponseName, report: PruneReport) -> bool:
        """Add a file to the report. Return whether it has answers to prune."""
        again, found = ResponseCost(), 0
        columns = ["result_type", "error_type", "error_message", "cost_usd", "ended_at"]
        with open_responses(root.storage, pipeline, name) as file, reading_responses(root.storage, pipeline, name):
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns, use_threads=False)
                mask = self.mask(table, start)
                part = slice(start, start + len(table))
                start += len(table)
                report.kept += int((self._is_old(table) & self.is_needed[part] & ~mask).sum())
                if mask.any():
                    found += int(mask.sum())
                    report.needed += int((mask & self.is_needed[part]).sum())
                    report.again += int((mask & self.is_only[part]).sum())
                    report.bytes += int(_text_bytes(file, group) * mask.sum() / len(table))
                    again.add(table.filter(pa.array(mask & self.is_paid_again[part])))
        report.answers += found
        report.files += bool(found)
        report.picodollars += again.total.picodollars
        report.unpriced += again.total.unpriced
        return bool(found)

    def mask(self, table: pa.Table, start: int) -> NDArray[np.bool_]:
        """Return which rows of a part of the file are pruned: bool, shape (rows,).

        Args:
            table: The part, with the columns `result_type` and `ended_at`.
            start: The number of its first row.
        """
        is_old = self._is_old(table)
        return is_old if self.in_force else is_old & ~self.is_needed[start : start + len(table)]

    def _is_old(self, table: pa.Table) -> NDArray[np.bool_]:
        limit = pa.scalar(datetime.fromtimestamp(max(self.before, 0.0), UTC), table.schema.field("ended_at").type)
        is_answer = pc.equal(table["result_type"], ResultType.SUCCEEDED.value)
        is_old = pc.and_(is_answer, pc.fill_null(pc.less(table["ended_at"], limit), False))
        old: NDArray[np.bool_] = is_old.to_numpy().astype(bool)
        return old


def _text_bytes(file: pq.ParquetFile, group: int) -> int:
    """Return the size in the file of the columns with the texts of a row group."""
    metadata, names = file.metadata.row_group(group), file.schema_arrow.names
    return sum(int(metadata.column(names.index(name)).total_compressed_size) for name in _TEXTS)


def _rewrite(root: Root, pipeline: str, name: ResponseName, plan: _Plan, lease: Lease) -> None:
    """Replace a response file by one without the pruned answers, with the same rows in the same row groups."""
    start = 0

    def change(table: pa.Table) -> pa.Table:
        nonlocal start
        mask = plan.mask(table, start)
        start += len(table)
        return _pruned(table, mask) if mask.any() else table

    rewrite_file(root, pipeline, name, change, lease.check)


def _pruned(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    """Return a part of a response file in which the answers of some rows are pruned."""
    is_pruned = pa.array(mask)
    messages = table["response_json"].to_pylist()
    values = {
        **{name: pa.scalar(None, pa.string()) for name in _EMPTIED},
        "result_type": pa.scalar(ResultType.CANCELED.value),
        "error_type": pa.scalar(ErrorType.PRUNED.value),
        "error_message": pa.scalar(_WHY),
        "response_json": pa.array(
            [usage_in(text) if gone else None for text, gone in zip(messages, mask.tolist(), strict=True)],
            pa.string(),
        ),
    }
    for name, value in values.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pc.if_else(is_pruned, value, table[name]))
    return table
