"""A submission that is being written: its request files and its index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DamagedFileError, DatasetError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName, SubmissionId
from batch_assets.core.ledger import Lease
from batch_assets.core.pipeline.hooks import name_of
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.built_submission import BuiltSubmission
from batch_assets.core.requests.caching import CacheUse
from batch_assets.core.requests.enough import Enough
from batch_assets.core.requests.header_sets import MAX_HEADER_SETS, HeaderSets
from batch_assets.core.requests.pilot_sample import PilotSample, RequestsOfPilot, Sampled
from batch_assets.core.requests.piloting import BuiltPilot
from batch_assets.core.requests.priority_order import PriorityOrder
from batch_assets.core.requests.prompt_caching import PromptCaching
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.requests.request_sample import RequestSample
from batch_assets.core.requests.row_priorities import Priorities
from batch_assets.core.requests.selection import Selection
from batch_assets.core.requests.unchanged import fingerprint_of
from batch_assets.core.root import Root
from batch_assets.core.store.breakpoints import MOST_BYTES_ADDED
from batch_assets.core.store.digests import Digests, custom_ids
from batch_assets.core.store.file_division import PlannedFiles
from batch_assets.core.store.manifest import Division, Fingerprint, Manifest, remove_submission
from batch_assets.core.store.part_writer import PartWriters
from batch_assets.core.store.request_index import IndexWriter, RequestIndex, write_rejected
from batch_assets.core.store.request_lines import make_lines
from batch_assets.core.store.row_hashes import ROW_HASHES, RowHashesWriter, remove_row_hashes, writing_row_hashes
from batch_assets.core.template.rendering import CURRENT
from batch_assets.core.urls import without_secrets

_MEGABYTE = 1_000_000

Rejects = dict[int, tuple[str, str]]


@dataclass(frozen=True)
class RenderedRows:
    """A slice of the dataset's rows, with what became of each.

    Attributes:
        table: The rows.
        digests: The digest of each row's request: S16, shape (n,). It does not count for a rejected row.
        rejects: The (reason, text) of rejected rows, by position.
        left_out: The digests of requests that a limit left out: S16, shape (m,).
        hashes: The hash of each row: S16, shape (n,).
        has_hash: Whether the row has a hash: bool, shape (n,).
    """

    table: pa.RecordBatch
    digests: Digests
    rejects: Rejects
    left_out: Digests
    hashes: Digests
    has_hash: NDArray[np.bool_]

    def write_hashes(self, writer: RowHashesWriter) -> None:
        """Write the hashes of the rows that have a request."""
        has_request = self.has_hash.copy()
        has_request[list(self.rejects)] = False
        writer.write(self.hashes[has_request], self.digests[has_request])


class NewSubmission:
    """A submission that a build writes into its own folder. The ledger does not know it until it is registered.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        dataset: The rows.
        lease: Ensures that no other process builds requests of the partition.
        headers: The sets of headers that requests are sent with.
        selection: Decides which requests are sent.
        is_gathered: The last request file of each kind is kept, so that others can be gathered with it.
        is_planned: Nothing is written, only counted.
        caching: Finds what requests share, for `cache: auto`; `None` without it.
        pilot: Takes requests for a file of their own; `None` for none.
        order: Puts requests in the order of their priority; `None` to keep that of the rows.

    Attributes:
        report: The report of what is written so far. The caller updates its counts of requests.
        limits: The limits of one batch: requests, and bytes of its body.
        pilot_size: The requests of the pilot.
        planned: The request files that would be written; `None` if they are written.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partition: str,
        dataset: Dataset,
        lease: Lease,
        headers: HeaderSets,
        selection: Selection,
        *,
        is_gathered: bool = False,
        is_planned: bool = False,
        caching: PromptCaching | None = None,
        pilot: PilotSample | RequestsOfPilot | None = None,
        order: PriorityOrder | None = None,
    ) -> None:
        self._caching, self._order = caching, order
        self._pilot, self.pilot_size = pilot, RequestSample()
        self._root, self._pipeline, self._partition = root, pipeline, partition
        self._dataset, self._lease, self._headers, self._selection = dataset, lease, headers, selection
        self._id = SubmissionId.new()
        self.report = RequestsReport(str(self._id), is_refresh=selection.fresh_after is not None)
        self.limits = (
            pipeline.config.batching.max_requests,
            int(pipeline.config.batching.max_mb * _MEGABYTE),
        )
        self._folder = submission_parts(pipeline.name, partition, self.report.submission_id)
        bytes_added = MOST_BYTES_ADDED if caching is not None else 0
        self._parts, self._pilot_parts = (
            PartWriters(
                root.storage,
                self._folder,
                self.limits,
                self._next_part,
                keeps_last=is_gathered,
                bytes_added=bytes_added,
            )
            for _ in range(2)
        )
        self._part_count = 0
        self.planned = PlannedFiles(self.limits, bytes_added) if is_planned else None

    def write(
        self,
        rendered: Iterable[RenderedRows],
        *,
        limited: bool,
        context: bytes | None,
        has_read_more: Callable[[], bool],
    ) -> bool:
        """Write the index and the request files while rows are rendered. A failure removes everything.

        Args:
            rendered: The slices of rows.
            limited: A limit may leave requests out.
            context: The context of the rows' hashes; `None` if they have none.
            has_read_more: Returns, once all rows are rendered, whether templates have read files that neither the
                context nor the `inputs_digest` of the build covers.

        Returns:
            Whether the two cover everything that was read.
        """
        try:
            with self._parts, self._pilot_parts:
                self._write_index(rendered, limited, context)
            if has_read_more():
                remove_row_hashes(self._root.storage, self._folder)
                return False
            return True
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove what was written. Nothing of it is on record."""
        self._parts.drop()
        self._pilot_parts.drop()
        remove_submission(self._root.storage, self._pipeline.name, self._partition, self.report.submission_id)

    def _write_index(self, rendered: Iterable[RenderedRows], limited: bool, context: bytes | None) -> None:
        rejected: list[pa.RecordBatch] = []
        names = "index.parquet", "rejected.parquet", *((ROW_HASHES,) if context is not None else ())
        with (
            self._root.storage.write_all(*((*self._folder, name) for name in names), beside=self._finish) as paths,
            writing_row_hashes(paths[2:], context) as hashes,
            IndexWriter(paths[0], self._dataset, limited=limited) as index,
        ):
            for rows in rendered:
                index.write(rows.table, rows.digests, rows.rejects, rows.left_out)
                if hashes is not None:
                    rows.write_hashes(hashes)
                if rows.rejects:
                    rejected.append(_rejected_rows(rows.table.column(self._dataset.key), rows.rejects))
            write_rejected(paths[1], index.schema, rejected)
        self._check_nested(index.schema)

    def _check_nested(self, schema: pa.Schema) -> None:
        """Read nested columns back, as the join will: Arrow can write some that it cannot read."""
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        if not nested:
            return
        index = RequestIndex(self._root.storage, self._pipeline.name, self._partition, self.report.submission_id)
        for name in nested:
            try:
                for _ in index.slices([name]):
                    self._lease.check()
            except DamagedFileError as error:
                raise DatasetError(
                    f"{self._dataset.source}: dataset.columns: results cannot hold the column {name!r}: {error}. "
                    "Leave it out, or make it text"
                ) from None

    def add(
        self,
        kind: int,
        keys: Sequence[Any],
        digests: Digests,
        params: Sequence[bytes],
        priorities: Priorities | None = None,
    ) -> None:
        """Add requests to request files of their kind.

        Args:
            kind: Attempt and number of the header set, see `kinds_of`.
            keys: For each request, the row key that its custom_id begins with.
            digests: The digests of the requests, shape (n,).
            params: The params of the requests.
            priorities: The priority of each so far, shape (n,); `None` without an order.
        """
        headers, ids = self._headers.sets[kind % MAX_HEADER_SETS], custom_ids(keys, digests, self._root.mark)
        has_stub = self._caching is not None and self._caching.add(headers, params)
        if self.planned is not None:
            self._plan(kind, ids, params, has_stub=has_stub)
            return
        lines = make_lines(ids, params)
        if has_stub:
            entry = self._parts.add_alone(*self._files_of(kind), lines[0], digests[:1])
            self._set_stub(headers, str(self._id.file(entry.part)))
            lines, digests, params = lines[1:], digests[1:], params[1:]
            priorities = priorities[1:] if priorities is not None else None
        if self._pilot is None and self._order is None:
            self._parts.add(*self._files_of(kind), lines, digests)
            return
        ranks = priorities.tolist() if priorities is not None else [0.0] * len(lines)
        requests = Sampled(kind, lines, digests, [*params], ranks)
        for others in self._pilot.add(requests) if self._pilot is not None else (requests,):
            if self._order is not None:
                self._order.add(others)
            else:
                self._parts.add(*self._files_of(others.kind), others.lines, others.digests)

    def note(self, digests: Digests, priorities: Priorities) -> None:
        """Note the priorities of further rows, see `PriorityOrder.note`."""
        if self._order is not None:
            self._order.note(digests, priorities)

    def _finish(self) -> None:
        """Write the requests that waited for all others, and publish the last request files."""
        self._write_pilot()
        self._write_ordered()
        self._parts.finish()
        self._pilot_parts.finish()

    def _write_ordered(self) -> None:
        """Divide the requests that waited for their order into request files."""
        if self._order is None:
            return
        for kind, lines in self._order.in_order():
            self._parts.add(*self._files_of(kind), lines)
        self._order.close()

    def _write_pilot(self) -> None:
        """Write the requests of the pilot into files of their own."""
        for sampled in self._pilot.take() if self._pilot is not None else ():
            self.pilot_size.add(sampled.digests, sampled.params)
            self._pilot_parts.add(*self._files_of(sampled.kind), sampled.lines, sampled.digests)

    def _files_of(self, kind: int) -> tuple[int, dict[str, str] | None]:
        """Return the attempt of a kind, and its headers if request files may differ in them."""
        attempt, number = divmod(kind, MAX_HEADER_SETS)
        return attempt, self._headers.sets[number] if self._headers.by_row else None

    def _plan(self, kind: int, ids: Sequence[bytes], params: Sequence[bytes], *, has_stub: bool) -> None:
        """Count requests that are not written."""
        assert self.planned is not None
        if has_stub:
            number = kind % MAX_HEADER_SETS
            self._set_stub(self._headers.sets[number], "planned")
            self.planned.add(-1 - number, ids[:1], params[:1])  # in a file of its own
            ids, params = ids[1:], params[1:]
        self.planned.add(kind, ids, params)

    def _set_stub(self, headers: Mapping[str, str], file_id: str) -> None:
        assert self._caching is not None
        self._caching.set_stub(headers, self.report.submission_id, file_id)

    def _next_part(self) -> PartName:
        self._lease.check()
        self._part_count += 1
        return PartName(self._part_count - 1)

    def cache_use(self) -> CacheUse | None:
        """What the requests do with the prompt cache, once all are added; `None` without `cache: auto`."""
        return self._caching.use_by(self.report.submission_id) if self._caching is not None else None

    def cache_use_later(self, sample: RequestSample) -> CacheUse | None:
        """What requests beyond a limit would do with the prompt cache; `None` without `cache: auto`."""
        return self._caching.use_later(sample.requests, sample.params()) if self._caching is not None else None

    def finished(self, fingerprint: Fingerprint | None, pilot: BuiltPilot) -> BuiltSubmission:
        """Return what was written, so that it can be registered, once everything is written.

        Args:
            fingerprint: What shows a later build that nothing has changed; `None` if nothing does.
            pilot: What the build has done about a pilot.

        Raises:
            BusyError: See `Selection.check_chains`.
        """
        self._selection.check_chains()
        report, pipeline, chosen = self.report, self._pipeline, self._selection.chosen
        by_row, hook = self._headers.by_row, pipeline.hooks.render_request
        manifest = Manifest(
            pipeline=pipeline.name,
            partition=self._partition,
            division=_division(pipeline),
            submission=report.submission_id,
            dataset=self._dataset.location,
            key=self._dataset.key_name,
            carried=self._dataset.carried,
            params=without_secrets(pipeline.config.params),
            headers=self._headers.common,
            betas=pipeline.config.betas if by_row else None,
            header_sets=self._headers.sets if by_row else None,
            render_request=name_of(hook) if hook is not None else None,
            rendering=CURRENT,
            column_kinds=self._dataset.kinds or None,
            fingerprint=fingerprint,
            bounded_schema=pipeline.bounded_schema,
            fresh_after=chosen.fresh_after,
            waits=chosen.waited_on if chosen.fresh_after is not None else None,
            left_out=report.left_out or None,
            output_schema=pipeline.sent_schema,
            output_tool=pipeline.tool.name if pipeline.tool else None,
            tool_calls=pipeline.has_tool_calls,
            max_attempts=pipeline.config.retry.max_attempts,
            follow_ups=pipeline.follow_ups,
            max_requests=self.limits[0],
            max_bytes=self.limits[1],
            rows=report.rows,
            rejected=report.rejected,
            requests=report.requests,
            files=[],
        )
        return BuiltSubmission(
            manifest,
            self._lease,
            report,
            chosen,
            self._parts,
            self._pilot_parts,
            pipeline.prompt_digest,
            pilot,
            self._caching,
            Enough.of(pipeline.config.batching),
        )

    def fingerprint(self, inputs: str | None) -> Fingerprint | None:
        """Return what shows a later build that nothing has changed, once everything is written.

        Args:
            inputs: The `inputs_digest` of the build; `None` if it has none, or it does not cover all inputs.
        """
        if inputs is None:
            return None
        return fingerprint_of(self._root.storage, self._pipeline.name, self._partition, self.report, inputs)


def _division(pipeline: Pipeline) -> Division | None:
    partitions = pipeline.partitions
    return Division(kind=partitions.division, column=partitions.column) if partitions is not None else None


def _rejected_rows(keys: pa.Array, rejects: dict[int, tuple[str, str]]) -> pa.RecordBatch:
    positions = sorted(rejects)
    reasons = pa.array([rejects[position][0] for position in positions], pa.string())
    messages = pa.array([rejects[position][1] for position in positions], pa.string())
    rejected_keys = keys.take(pa.array(positions, pa.int64()))
    return pa.RecordBatch.from_arrays([rejected_keys, reasons, messages], names=["key", "reason", "message"])
