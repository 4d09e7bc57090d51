"""Import answers of a batch that was made elsewhere into the response store of a pipeline.

They become one response file. It is written beside its final path, synced and renamed, so a killed import leaves
nothing or all of it, and the next one finishes. A request that has an answer keeps it, so importing again changes
nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.imports.lines import AnswerLines, KnownParams
from batch_assets.core.imports.matching import Matching
from batch_assets.core.imports.report import ImportFailedError, ImportReport, LeftOut
from batch_assets.core.imports.source import Source, open_source
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import Lease, batches, imports
from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.current_requests import current_requests
from batch_assets.core.results.line_parser import MISSING, LineParser
from batch_assets.core.results.parallel_lines import ParallelLines
from batch_assets.core.results.response_rows import response_batch
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.root import Root
from batch_assets.core.store.digests import digester, tails_of
from batch_assets.core.store.missing_responses import with_readable_responses
from batch_assets.core.store.pipeline_outcomes import PipelineOutcomes, drop_kept, open_answers
from batch_assets.core.store.response_cost import ResponseCost
from batch_assets.core.store.responses import (
    RESPONSE_ENCODING,
    RESPONSE_SCHEMA,
    ended_at_of,
    open_responses,
)
from batch_assets.core.text import count

_RESPONSES = "responses"
_EXAMPLES = 5


def import_answers(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    source: str,
    *,
    requests: Path | None = None,
    by_key: bool = False,
    left_out: Path | None = None,
    table: Any = None,
) -> ImportReport:
    """Store the answers of a batch that was made elsewhere which the rows of a partition ask for.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        source: The path of a file of results, or the id of a batch.
        requests: A file of the batch's requests, which shows what was asked; `None` without one.
        by_key: Whether the user trusts that a custom_id that is a row key belongs to that row.
        left_out: Where to write each line that was left out, as CSV with `custom_id` and `reason`; `None` not to.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        ImportFailedError: When the source cannot be used.
        DatasetError: When the dataset cannot be used.
        ConfigError: When the pipeline does not fit the dataset's columns.
        BusyError: When other processes worked on the partition's requests the whole time.
        EndpointMismatchError: When the root belongs to another API.
    """
    if by_key and pipeline.config.dataset.key_column == ROW_NUMBER:
        raise ImportFailedError(
            f"the rows of {pipeline.name} have no key of their own, so no custom_id can be a row key: name the "
            "column that identifies a row in dataset.key"
        )
    known = KnownParams.read(requests) if requests is not None else None
    with (
        current_requests(root, pipeline, partition, table=table) as current,
        open_source(root, pipeline.name, source) as opened,
    ):
        _record_unrecorded(root, pipeline.name)
        lines = AnswerLines.read(opened.path)
        matching = Matching(lines, known, by_key=by_key)
        for group in current.groups():
            matching.add(group)
        matching.finish()
        _leave_out_answered(root, pipeline.name, matching)
        report = ImportReport(source, opened.batch_id or "", len(lines.start), current.rows)
        if len(matching.matched()):
            _store(root, pipeline.name, current.lease, opened, matching, lines, report)
        _describe(report, matching, lines, left_out)
        return report


def _leave_out_answered(root: Root, pipeline: str, matching: Matching) -> None:
    """Leave out the lines whose request has an answer: nothing is replaced."""
    numbers = matching.matched()
    digests = matching.digests[numbers]

    def is_answered() -> NDArray[np.bool_]:
        outcomes = PipelineOutcomes(open_answers(root, pipeline, len(digests)), {})
        return outcomes.for_digests(digests).is_answered

    answered, _ = with_readable_responses(root, is_answered)
    matching.leave_out_matched(numbers[answered], LeftOut.ANSWERED)


def _store(
    root: Root,
    pipeline: str,
    lease: Lease,
    source: Source,
    matching: Matching,
    lines: AnswerLines,
    report: ImportReport,
) -> None:
    """Write the response file, and record it in the ledger."""
    numbers = matching.matched()
    identity = digester({"batch": source.batch_id or ""})
    identity.update(matching.digests[numbers].tobytes())
    name = ResponseName.of_import(identity.hexdigest())
    report.batch_id = source.batch_id or name.stem
    schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": f"{source.ended_at:020.6f}".encode()})
    cost, stored = ResponseCost(), np.zeros(len(numbers), bool)
    target = root.storage.path(pipeline, _RESPONSES, str(name))
    root.storage.remove_leftovers(pipeline, _RESPONSES, name=str(name))
    with root.storage.scratch_file(target) as scratch:
        with TableWriter(scratch, schema, **RESPONSE_ENCODING) as writer:
            for first, rows, is_answer in _responses(root, source, matching, lines, numbers, report.batch_id):
                lease.check()
                stored[first : first + len(is_answer)] = is_answer
                cost.add(rows)
                writer.write(pa.Table.from_batches([rows]).replace_schema_metadata(schema.metadata))
        matching.leave_out_matched(numbers[~stored], LeftOut.UNREADABLE)
        if not stored.any():
            return
        lease.check()
        root.storage.publish(scratch, target)
    drop_kept(root, pipeline)
    answers = int(stored.sum())
    with root.ledger.write(pipeline) as tx:
        lease.confirm(tx)
        reason = f"{count(answers, 'answer')} imported from {source.batch_id or source.path.name}"
        imports.note(tx, name.stem, pipeline, answers, source.ended_at, reason)
    report.picodollars, report.unpriced = cost.total.picodollars, cost.total.unpriced


def _responses(
    root: Root,
    source: Source,
    matching: Matching,
    lines: AnswerLines,
    numbers: NDArray[np.intp],
    batch_id: str,
) -> Iterator[tuple[int, pa.RecordBatch, NDArray[np.bool_]]]:
    """Yield the answers as responses: (number of the first line, those that can be stored, which these are)."""
    tails = tails_of(matching.digests[numbers])
    found = ResultLines(lines.start[numbers], lines.end[numbers], tails, count=len(numbers), ours=len(numbers))
    parser = LineParser(batch_id, MISSING, root.settings.prices)
    shared = {
        "batch_id": batch_id,
        "attempts": 1,
        "ended_at": datetime.fromtimestamp(source.ended_at, UTC),
    }
    with ParallelLines(root.settings.processes) as parallel:
        for group in parallel.parse(parser, source.path, found):
            part = slice(group.first, group.first + len(group.rows))
            is_answer = pc.equal(group.rows.column("result_type"), ResultType.SUCCEEDED.value)
            rows = response_batch(group.rows, tails[part], shared).filter(is_answer)
            yield group.first, rows, is_answer.to_numpy(zero_copy_only=False)


def _record_unrecorded(root: Root, pipeline: str) -> None:
    """Record imports of which a killed process has stored the answers, and nothing else."""
    names = filter(None, map(ResponseName.parse, root.storage.file_names(pipeline, _RESPONSES)))
    stored = [name for name in names if name.is_import]
    with root.ledger.read() as tx:
        recorded = {batch.id for batch in batches.by_ids(tx, [name.stem for name in stored])}
    for name in stored:
        if name.stem not in recorded:
            with open_responses(root.storage, pipeline, name) as file:
                answers, ended_at = file.metadata.num_rows, ended_at_of(file)
            with root.ledger.write(pipeline) as tx:
                reason = f"{count(answers, 'answer')} imported by a process that was killed"
                imports.note(tx, name.stem, pipeline, answers, ended_at, reason)


def _describe(report: ImportReport, matching: Matching, lines: AnswerLines, left_out: Path | None) -> None:
    """Fill in what was imported and left out, and write the list of what was left out."""
    report.imported = matching.ways()
    numbers = matching.numbers_left_out()
    report.left_out = {reason: len(some) for reason, some in numbers.items()}
    report.examples = {
        reason: [lines.custom_id(number) for number in some[:_EXAMPLES].tolist()]
        for reason, some in numbers.items()
    }
    if left_out is None:
        return
    reasons = {number: reason for reason, some in numbers.items() for number in some.tolist()}
    with left_out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["custom_id", "reason"])
        for number in sorted(reasons):
            writer.writerow([lines.custom_id(number), reasons[number].value])
