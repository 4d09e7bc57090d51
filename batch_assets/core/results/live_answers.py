"""Store the answers of live calls as response files, also of calls whose process was killed.

A group becomes one file, with a row for each call that was made. A call without an answer is errored with
`live_call_lost`: it may have been paid for. Its row goes on waiting for the batch: a live call that failed is
`NO_OUTCOME`, so it never takes the place of what the batch brings, whatever is stored first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.batches.live_traces import has_journals, record_traces
from batch_assets.core.errors import BusyError, DamagedFileError, ErrorType
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import Lease, batches, files, leases, rescues, reservations, spend
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.rescues import LiveGroup
from batch_assets.core.ledger.states import FileState
from batch_assets.core.results.line_parser import MISSING, LineParser
from batch_assets.core.results.parallel_lines import ParallelLines
from batch_assets.core.results.response_rows import response_batch
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_CHARACTERS
from batch_assets.core.store.follow_up_ids import is_follow_up
from batch_assets.core.store.indexing import WrittenAnswers
from batch_assets.core.store.live_journal import LiveGroupHeader, LiveJournal
from batch_assets.core.store.packed_responses import NO_OUTCOME
from batch_assets.core.store.pipeline_outcomes import drop_kept
from batch_assets.core.store.response_cost import ResponseCost
from batch_assets.core.store.responses import (
    RESPONSE_ENCODING,
    RESPONSE_SCHEMA,
    file_metadata,
    open_responses,
    paid_at_of,
    reading_responses,
)
from batch_assets.core.text import counts as counts_text

_KILLED = "the process that made the live call ended before there was a reply"


def store_live_answers(root: Root, pipeline: str, *, wait: float = 0.0) -> list[str]:
    """Store the answers of a pipeline's live calls, unless a process is making some.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        wait: Seconds to wait for that process.

    Returns:
        A text about each group that cannot be stored.

    Raises:
        BusyError: When that process was not done by then, and `wait` is given.
    """
    with root.ledger.read() as tx:
        is_idle = not rescues.groups(tx, [pipeline])
        may_be_lost = bool(rescues.rules(tx, [pipeline]))
    if is_idle and not (may_be_lost and has_journals(root, pipeline)):
        return []
    name, work = rescues.lease_name(pipeline), f"the live calls of {pipeline}"
    if wait:
        with leases.hold(root.ledger, name, wait=wait, work=work, pipeline=pipeline) as lease:
            return _store_all(root, pipeline, lease)
    taken = leases.try_take(root.ledger, name, work=work, pipeline=pipeline)
    if taken is None:
        return []
    with taken:
        return _store_all(root, pipeline, taken)


def _store_all(root: Root, pipeline: str, lease: Lease) -> list[str]:
    problems: list[str] = []
    record_traces(root, pipeline, lease)
    with root.ledger.read() as tx:
        groups = rescues.groups(tx, [pipeline])
    for group in groups:
        try:
            _Group(root, group, lease).store()
        except (BusyError, DamagedFileError) as error:
            problems.append(f"answers of live calls: {error}")
    if groups:
        drop_kept(root, pipeline)
    return problems


class _Group:
    """A group of live calls whose answers are stored."""

    def __init__(self, root: Root, group: LiveGroup, lease: Lease) -> None:
        self._root, self._group, self._lease = root, group, lease
        self._journal = LiveJournal(root.storage, group.pipeline, group.id)
        self._parts = response_parts(group.pipeline, group.id)
        self._cost, self._lost_cost = ResponseCost(), 0

    def store(self) -> None:
        """Store it, and remove its journal."""
        root, group = self._root, self._group
        with root.ledger.read() as tx:
            file = files.by_id(tx, group.file_id)
            now = tx.now
        header = self._journal.header()
        if header is not None and not root.storage.is_file(*self._parts):
            self._publish(file, header, now)
        if root.storage.is_file(*self._parts):
            counts, called_at = self._read(header)
            with root.ledger.write(group.pipeline) as tx:
                self._lease.confirm(tx)
                reason = f"live calls for {file.id}: {counts_text(counts)}"
                rescues.stored(tx, file, group.id, counts, called_at, reason)
                spend.record(tx, group.id, self._cost.total)
                reservations.settle(tx, group.id, self._settled)
        else:
            with root.ledger.write(group.pipeline) as tx:
                self._lease.confirm(tx)
                rescues.forget(tx, group.id)
        self._journal.remove()

    @property
    def _settled(self) -> int | None:
        """What the group counts in budgets: its cost, and the most that lost calls can cost; `None` if unknown."""
        total = self._cost.total
        return None if total.unpriced or self._lost_cost < 0 else total.picodollars + self._lost_cost

    def _publish(self, file: RequestFile, header: LiveGroupHeader, now: float) -> None:
        """Write the response file, if any call was made."""
        made, answered = self._journal.notes()
        numbers = sorted(number for number in made if number < len(header.custom_ids))
        if not numbers:
            return
        storage, target = self._root.storage, self._root.storage.path(*self._parts)
        *folder, name = self._parts
        storage.remove_leftovers(*folder, name=name)
        with self._not_collecting(file) as ended_at, storage.scratch_file(target + ".raw") as raw:
            lines = self._write_lines(raw, header, numbers, answered)
            follows = is_follow_up(header.custom_ids[numbers[0]])
            metadata = file_metadata(ended_at or now, follows=follows, called_at=now)
            schema = RESPONSE_SCHEMA.with_metadata(metadata)
            with storage.scratch_file(target) as scratch:
                with TableWriter(scratch, schema, **RESPONSE_ENCODING) as writer:
                    for rows in self._rows(raw, lines, file.attempt, now):
                        self._lease.check()
                        writer.write(pa.Table.from_batches([rows]).replace_schema_metadata(schema.metadata))
                answers = WrittenAnswers(self._root, self._group.pipeline, ResponseName(self._group.id), scratch)
                self._lease.check()
                storage.publish(scratch, target)
            answers.add()

    @contextmanager
    def _not_collecting(self, file: RequestFile) -> Iterator[float | None]:
        """Keep others from storing the batch's answers, and yield the time by which the group is ordered.

        That is before the batch's answers, so that the first stored answer stays the result of a row. `None` if
        they are stored already: then the group comes after them.
        """
        with self._root.ledger.read() as tx:
            batch = batches.by_id(tx, file.batch_id) if file.batch_id is not None else None
        if batch is None:
            yield self._group.started_at if file.state is not FileState.COLLECTED else None
            return
        work = f"the results of {batch.id}"
        with leases.hold(
            self._root.ledger,
            batches.lease_name(batch.id),
            wait=leases.PATIENCE,
            work=work,
            pipeline=file.pipeline,
        ):
            with self._root.ledger.read() as tx:
                current = files.by_id(tx, file.id)
            before = min(batch.created_at or self._group.started_at, self._group.started_at)
            yield None if current.state is FileState.COLLECTED else before

    def _write_lines(
        self, raw: Path, header: LiveGroupHeader, numbers: list[int], answered: set[int]
    ) -> ResultLines:
        """Write the result lines of the calls that were made, in their order."""
        ends = []
        with raw.open("wb") as out:
            for number in numbers:
                line = self._journal.answer(number) if number in answered else _lost(header.custom_ids[number])
                out.write(line)
                ends.append(out.tell())
        tails = np.array([header.custom_ids[number].encode()[-DIGEST_CHARACTERS:] for number in numbers])
        end = np.array(ends, np.int64)
        start = np.concatenate([[0], end[:-1]])
        return ResultLines(start, end, tails, count=len(numbers), ours=len(numbers))

    def _rows(self, raw: Path, lines: ResultLines, attempt: int, now: float) -> Iterator[pa.RecordBatch]:
        """Yield the responses. Their cost is that of live calls, and those that failed are no outcome."""
        parser = LineParser(self._group.id, MISSING, self._root.settings.prices)
        shared = {"batch_id": self._group.id, "attempts": attempt, "ended_at": datetime.fromtimestamp(now, UTC)}
        for group in ParallelLines(1).parse(parser, raw, lines):
            rows = response_batch(group.rows, lines.tails[group.first : group.first + len(group.rows)], shared)
            at = rows.schema.get_field_index("cost_usd")
            rows = rows.set_column(at, rows.schema.field(at), rows.column("live_cost_usd"))
            at = rows.schema.get_field_index("attempts")
            has_answer = pc.equal(rows.column("result_type"), ResultType.SUCCEEDED)
            attempts = pc.if_else(has_answer, rows.column("attempts"), pa.scalar(NO_OUTCOME, pa.int32()))
            yield rows.set_column(at, rows.schema.field(at), attempts)

    def _read(self, header: LiveGroupHeader | None) -> tuple[dict[str, int], float]:
        """Add up the response file. Returns its rows by result type, and when the last call ended."""
        storage, pipeline, name = self._root.storage, self._group.pipeline, ResponseName(self._group.id)
        with open_responses(storage, pipeline, name) as file, reading_responses(storage, pipeline, name):
            table = file.read(
                columns=["custom_id", "cost_usd", "result_type", "error_type", "error_message"], use_threads=False
            )
            called_at = paid_at_of(file)
        self._cost.add(table)
        lost = [
            custom_id
            for custom_id, kind in zip(
                *(table[name].to_pylist() for name in ("custom_id", "error_type")), strict=True
            )
            if kind == ErrorType.LIVE_CALL_LOST
        ]
        known = dict(zip(header.custom_ids, header.worst_cases, strict=True)) if header is not None else {}
        worst_cases = [known.get(custom_id, -1) for custom_id in lost]
        self._lost_cost = sum(worst_cases) if min(worst_cases, default=0) >= 0 else -1
        return dict(Counter(table["result_type"].to_pylist())), called_at


def _lost(custom_id: str) -> bytes:
    """Return the result line of a call of which nothing is known but that it was made."""
    error = {"type": "error", "error": {"type": ErrorType.LIVE_CALL_LOST.value, "message": _KILLED}}
    line = {"custom_id": custom_id, "result": {"type": ResultType.ERRORED.value, "error": error}}
    return json.dumps(line).encode() + b"\n"
