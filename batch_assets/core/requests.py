"""The first stage: dataset rows -> a submission of request files, index and manifest.

What is written is desired - answered - in flight - given up; every row stands in the index.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.core.columns import RESULT_NAMES, TOOL_CALLS
from batch_assets.core.config import Pipeline
from batch_assets.core.datasets.dataset import Dataset
from batch_assets.core.datasets.rows import Rows, python_values
from batch_assets.core.digests import DigestSet, custom_ids, pack
from batch_assets.core.errors import BusyError
from batch_assets.core.header_sets import MAX_HEADER_SETS, HeaderSets
from batch_assets.core.held import HeldRequests
from batch_assets.core.index import HEADER_SETS, IndexWriter, write_rejected
from batch_assets.core.keys import KeyCheck
from batch_assets.core.ledger import Lease, leases, submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.lost_responses import reopen_lost
from batch_assets.core.memory import release_memory
from batch_assets.core.request_files import PARTS, PartWriter, make_lines
from batch_assets.core.response_store import CANCELED, PASSING, SUCCEEDED, Standing, load_standing
from batch_assets.core.root import Root, submission_parts
from batch_assets.core.sink import check_sink
from batch_assets.core.templates.values import RowRejectedError

# Rows are rendered, then looked up together; whichever comes first ends such a group.
_GROUP_ROWS = 4096
_GROUP_BYTES = 4 << 20
# Of a batch's body at most, beside a single request's params: its custom_id and all brackets.
_LINE_BYTES = 200
_MEGABYTE = 1_000_000
# A build during which a file it had set aside was sent is thrown away; this often it is tried.
_BUILDS = 3


@dataclass
class RequestsReport:
    """What one run of the stage did.

    Attributes:
        requests: distinct requests that the rows want.
        written: of these, the ones that are to be submitted.
        reused: of these, answered or given up before.
        in_flight: of these, in request files that are on their way already.
        files: names of the request files written.
        bytes: of the HTTP bodies they become.
    """

    submission_id: str
    rows: int = 0
    rejected: int = 0
    requests: int = 0
    written: int = 0
    reused: int = 0
    in_flight: int = 0
    files: list[str] = field(default_factory=list)
    bytes: int = 0


def build_requests(
    root: Root,
    pipeline: Pipeline,
    partition: str = "",
    on_rows: Callable[[int], None] | None = None,
    *,
    retry_failed: bool = False,
    table: Any = None,
) -> RequestsReport:
    """Reads the dataset and writes a submission: what need not be asked again is left out.

    Args:
        retry_failed: ask again, once more than before, what was given up: requests that failed for a lasting
            reason, used up their attempts, or whose results the API has archived.
        on_rows: told how many rows were read so far.
        table: the value of `dataset.asset`, where the pipeline has one.

    Errors:
        DatasetError: the dataset cannot be used; nothing is registered.
        ConfigError: the pipeline does not fit the dataset's columns.
        SinkError: the results will have no place in the pipeline's sink.
        BusyError: another run is reading this pipeline's dataset.
    """
    with leases.hold(root.ledger, f"requests:{pipeline.name}", wait=60.0) as lease:
        _remove_garbage(root, pipeline.name, partition)
        reopen_lost(root, pipeline.name)
        with Dataset(pipeline, table) as dataset:
            _check_against_dataset(pipeline, dataset)
            check_sink(root, pipeline, _results_columns(pipeline, dataset), partition)
            for _ in range(_BUILDS):
                build = _Build(root, pipeline, partition, dataset, lease, retry_failed)
                report = build.run(on_rows or (lambda _: None))
                release_memory()
                if report is not None:
                    return report
        raise BusyError(f"request files of {pipeline.name} were sent at each of {_BUILDS} builds: run it again")


def new_submission_id() -> str:
    """Sortable by time, and unlike any other."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(4)


def _check_against_dataset(pipeline: Pipeline, dataset: Dataset) -> None:
    pipeline.check_columns(dataset.key, dataset.carried)
    known = {*dataset.schema.names, dataset.key}
    unknown = sorted(pipeline.reads - known)
    if unknown:
        columns = ", ".join(sorted(known))
        problem = f"the template reads {unknown[0]!r}, no column of {dataset.place}; its columns: {columns}"
        raise pipeline.error(pipeline.where(unknown[0]), problem)


def _results_columns(pipeline: Pipeline, dataset: Dataset) -> list[str]:
    typed = pipeline.output.names if pipeline.output else []
    tools = [TOOL_CALLS.name] if pipeline.has_tool_calls else []
    return list(dict.fromkeys([dataset.key, *dataset.carried.values(), *RESULT_NAMES, *typed, *tools]))


def _remove_garbage(root: Root, pipeline: str, partition: str) -> None:
    """Removes what killed runs left unfinished, files and folders. The lease says nobody is at it."""
    folder = submission_parts(pipeline, partition, "")
    with root.ledger.read() as tx:
        known = submissions.known_ids(tx, pipeline)
    for name in root.storage.names(*folder):
        if name.startswith("partition="):
            continue
        if name in known:  # failed requests were about to be asked again
            root.storage.remove_leftovers(*folder, name, name=PARTS)
        elif not root.storage.exists(*folder, name, "manifest.json"):
            root.storage.remove(*folder, name)


class _Build:
    """One run of the stage."""

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partition: str,
        dataset: Dataset,
        lease: Lease,
        retry_failed: bool,
    ) -> None:
        self._root, self._pipeline, self._partition = root, pipeline, partition
        self._dataset, self._lease, self._retry_failed = dataset, lease, retry_failed
        self._report = RequestsReport(new_submission_id())
        self._folder = submission_parts(pipeline.name, partition, self._report.submission_id)
        self._limits = (
            pipeline.config.batching.max_requests,
            int(pipeline.config.batching.max_mb * _MEGABYTE),
        )
        self._headers = HeaderSets(pipeline)
        self._desired = DigestSet()
        self._writers: dict[tuple[int, int], PartWriter] = {}
        self._parts = 0
        self._created_at = 0.0
        self._standing: Standing
        self._held: HeldRequests
        self._set_aside: list[RequestFile] = []

    def run(self, on_rows: Callable[[int], None]) -> RequestsReport | None:
        """None when request files were sent meanwhile that this build counted as unsent."""
        with self._root.ledger.read() as tx:
            self._created_at = tx.now
            self._set_aside = submissions.unsent(tx, self._pipeline.name, self._partition)
            unsent = {file.id for file in self._set_aside}
            held = [file for file in submissions.holding(tx, self._pipeline.name) if file.id not in unsent]
        # In this order: what is collected in between is in both, never in neither.
        self._held = HeldRequests(self._root, held)
        self._standing = load_standing(self._root.storage, self._pipeline.name)
        try:
            with ExitStack() as files:
                self._write_rows(files, on_rows)
            for writer in self._writers.values():
                writer.finish()
        except BaseException:
            for writer in self._writers.values():
                writer.abandon()
            self._root.storage.remove(*self._folder)
            raise
        self._write_manifest()
        if self._register():
            return self._report
        self._root.storage.remove(*self._folder)
        return None

    def _write_rows(self, files: ExitStack, on_rows: Callable[[int], None]) -> None:
        storage, report = self._root.storage, self._report
        index_path = files.enter_context(storage.write(*self._folder, "index.parquet"))
        rejected_path = files.enter_context(storage.write(*self._folder, "rejected.parquet"))
        index = IndexWriter(index_path, self._dataset)
        files.callback(index.close)
        keys = KeyCheck(self._dataset)
        rejected: list[pa.RecordBatch] = []
        template = self._pipeline.template
        template.read_files_with(self._dataset.read_file)
        names = list(dict.fromkeys([self._dataset.key, *self._dataset.carried, *self._pipeline.reads]))
        for rows in self._dataset.rows(names):
            self._lease.check()
            row_keys = rows.table.column(self._dataset.key).to_pylist()
            keys.watch(row_keys)
            digests, rejects = self._render(rows, row_keys)
            index.write(rows.table, digests, rejects)
            if rejects:
                rejected.append(_rejected_rows(rows.table.column(self._dataset.key), rejects))
            report.rows += len(row_keys)
            report.rejected += len(rejects)
            on_rows(report.rows)
        keys.finish()
        write_rejected(rejected_path, index.schema, rejected)

    def _render(self, rows: Rows, keys: list[Any]) -> tuple[list[bytes | None], dict[int, tuple[str, str]]]:
        """Renders rows and writes the requests that are new; returns digests and rejects by position."""
        render, limit = self._pipeline.template.render, self._limits[1] - _LINE_BYTES
        primed, by_row, number = self._headers.primed, self._headers.by_row, 0
        names = list(self._pipeline.reads)
        columns = [python_values(rows.table.column(name)) for name in names]
        digests: list[bytes | None] = [None] * len(keys)
        rejects = dict(rows.rejects)
        group: list[tuple[Any, bytes, bytes, int]] = []
        size = 0
        values = zip(*columns, strict=True) if columns else iter([()] * len(keys))
        for position, row in enumerate(values):
            if position in rejects:
                continue
            try:
                named = dict(zip(names, row))  # noqa: B905  as many, and this is the hot path
                params = render(named)
                if len(params) > limit:
                    problem = f"the request is {len(params)} bytes; batching.max_mb allows {limit}"
                    raise RowRejectedError("request_too_large", problem)
                if by_row:
                    number = self._headers.number_of(named)
            except RowRejectedError as error:
                rejects[position] = (error.reason, error.message)
                continue
            hash_ = primed[number].copy()
            hash_.update(params)
            digest = digests[position] = hash_.digest()
            group.append((keys[position], digest, params, number))
            size += len(params)
            if len(group) == _GROUP_ROWS or size > _GROUP_BYTES:
                self._write_new(group)
                group, size = [], 0
        self._write_new(group)
        return digests, rejects

    def _write_new(self, group: list[tuple[Any, bytes, bytes, int]]) -> None:
        """to submit = desired - answered - in flight - given up, for some rows.

        Args:
            group: (row key, digest, params, number of the header set) of each.
        """
        if not group:
            return
        packed = pack([digest for _, digest, _, _ in group])
        distinct, first = np.unique(packed, return_index=True)
        unseen = ~self._desired.contains(distinct)
        distinct, first = distinct[unseen], first[unseen]
        self._desired.add(distinct)
        held = self._held.contains(distinct)
        place, how, attempt = self._standing.of(distinct)
        spent = attempt >= self._pipeline.config.retry.max_attempts
        again = (how == CANCELED) | ((how == PASSING) & ~spent)
        if self._retry_failed:
            again = how != SUCCEEDED
        wanted = ~held & ((place < 0) | again)
        self._report.requests += len(distinct)
        self._report.in_flight += int(held.sum())
        self._report.reused += int((~held & ~wanted).sum())
        first = first[wanted]
        # One number for both, by which requests are told apart: next attempt and header set.
        kind = np.where(place < 0, 1, attempt + 1)[wanted] * MAX_HEADER_SETS
        if self._headers.by_row:
            kind += np.array([group[at][3] for at in first.tolist()], dtype=kind.dtype)
        for number in np.unique(kind).tolist():
            chosen = np.sort(first[kind == number])
            keys, _, params, _ = zip(*(group[at] for at in chosen.tolist()), strict=True)
            writer = self._writer(*divmod(number, MAX_HEADER_SETS))
            writer.add(make_lines(custom_ids(keys, packed[chosen]), params))

    def _writer(self, attempt: int, number: int) -> PartWriter:
        """What takes requests of an attempt and a header set."""
        if (attempt, number) not in self._writers:
            headers = self._headers.sets[number] if self._headers.by_row else None
            self._writers[attempt, number] = PartWriter(
                self._root.storage, self._folder, attempt, self._limits, self._next_part, headers
            )
        return self._writers[attempt, number]

    def _next_part(self) -> str:
        self._lease.check()
        self._parts += 1
        return f"part-{self._parts - 1:05d}.jsonl"

    def _files(self) -> list[dict[str, Any]]:
        written = [file for writer in self._writers.values() for file in writer.written]
        return sorted(written, key=lambda file: str(file["name"]))

    def _write_manifest(self) -> None:
        report, pipeline = self._report, self._pipeline
        files = self._files()
        report.files = [file["name"] for file in files]
        report.bytes = sum(file["bytes"] for file in files)
        report.written = sum(file["requests"] for file in files)
        manifest = {
            "pipeline": pipeline.name,
            "partition": self._partition,
            "submission": report.submission_id,
            "created_at": self._created_at,
            "dataset": self._dataset.place,
            "key": self._dataset.key,
            "carried": self._dataset.carried,
            "params": pipeline.config.params,
            "headers": pipeline.headers,
            **self._by_row(),
            "output_schema": pipeline.output.schema if pipeline.output else None,
            "output_tool": pipeline.tool.name if pipeline.tool else None,
            "tool_calls": pipeline.has_tool_calls,
            "max_attempts": pipeline.config.retry.max_attempts,
            "max_requests": self._limits[0],
            "max_bytes": self._limits[1],
            "rows": report.rows,
            "rejected": report.rejected,
            "requests": report.requests,
            "files": files,
        }
        content = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
        self._root.storage.write_bytes(content, *self._folder, "manifest.json")

    def _by_row(self) -> dict[str, Any]:
        """What the manifest says more where the betas depend on the row."""
        if not self._headers.by_row:
            return {}
        return {"betas": self._pipeline.config.betas, HEADER_SETS: self._headers.sets}

    def _register(self) -> bool:
        report, pipeline = self._report, self._pipeline
        values = {
            "id": report.submission_id,
            "pipeline": pipeline.name,
            "partition": self._partition,
            "rows": report.rows,
            "rejected": report.rejected,
            "requests": report.requests,
            "written": report.written,
            "headers": json.dumps(pipeline.headers),
            "max_attempts": pipeline.config.retry.max_attempts,
            "max_requests": self._limits[0],
            "max_bytes": self._limits[1],
        }
        place = {"pipeline": pipeline.name, "partition": self._partition}
        files = [{"id": f"{report.submission_id}/{file['name']}", **place, **file} for file in self._files()]
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            return submissions.register(tx, values, files, self._held.waited_on, self._set_aside)


def _rejected_rows(keys: pa.Array, rejects: dict[int, tuple[str, str]]) -> pa.RecordBatch:
    positions = sorted(rejects)
    reasons = pa.array([rejects[position][0] for position in positions], pa.string())
    messages = pa.array([rejects[position][1] for position in positions], pa.string())
    taken = keys.take(pa.array(positions, pa.int64()))
    return pa.RecordBatch.from_arrays([taken, reasons, messages], names=["key", "reason", "message"])
