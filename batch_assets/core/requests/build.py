"""The first stage: dataset rows -> a submission of request files, index and manifest.

What is written is desired - answered - in flight - given up; every row stands in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from batch_assets.core.answers.result_columns import RESULT_NAMES, TOOL_CALLS
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.row_keys import KeyCheck
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import BusyError, DatasetError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.names import REQUEST_FILES
from batch_assets.core.ledger import Lease, leases, submissions
from batch_assets.core.notify.notices import note_targets
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import HeaderSets
from batch_assets.core.requests.hook import RequestHook
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.selection import Selection, kinds_of
from batch_assets.core.requests.submission import NewSubmission, Rejects, Rendered
from batch_assets.core.root import Root
from batch_assets.core.sink.write import check_sink
from batch_assets.core.store.digests import Digests, pack
from batch_assets.core.store.missing_responses import reopen_lost
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.template.values import RowRejectedError

# Rows are rendered, then looked up together; whichever comes first ends such a group.
_GROUP_ROWS = 4096
_GROUP_BYTES = 4 << 20
# Of a batch's body at most, beside a single request's params: its custom_id and all brackets.
_LINE_BYTES = 200
# A build during which a file it had set aside was sent is thrown away; this often it is tried.
_BUILDS = 3

OnRequests = Callable[[Digests, Sequence[bytes]], None]


def build_requests(
    root: Root,
    pipeline: Pipeline,
    partition: str = "",
    on_rows: Callable[[int], None] | None = None,
    *,
    retry_failed: bool = False,
    refresh: bool = False,
    limit: int | None = None,
    table: Any = None,
) -> RequestsReport:
    """Reads the dataset and writes a submission: what need not be asked again is left out.

    Args:
        on_rows: told how many rows were read so far.
        retry_failed, refresh, limit: see `AskAgain`.
        table: the value of `dataset.asset`, where the pipeline has one.

    Errors:
        DatasetError: the dataset cannot be used; nothing is registered.
        ConfigError: the pipeline does not fit the dataset's columns.
        SinkError: the results will have no place in the pipeline's sink.
        BusyError: others were at this pipeline's requests all the while, or kept sending its files.
    """
    again = AskAgain(retry_failed, refresh, limit)
    if pipeline.config.notify:
        note_targets(root, [pipeline])
    with _reading(root, pipeline, partition, table) as given:
        check_sink(root, pipeline, _results_columns(pipeline, given.dataset), partition)
        for _ in range(_BUILDS):
            report = _Build(root, pipeline, partition, given, again).run(on_rows or _tell_nobody)
            release_memory()
            if report is not None:
                return report
    raise BusyError(f"request files of {pipeline.name} were sent at each of {_BUILDS} builds: run it again")


def count_requests(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    on_requests: OnRequests,
    again: AskAgain,
    *,
    table: Any = None,
) -> RequestsReport:
    """Finds out what `build_requests` would write, and writes and registers nothing.

    Args:
        on_requests: told the requests that would be submitted: their digests, and the params of each.
        table: the value of `dataset.asset`, where the pipeline has one.

    Errors:
        As of `build_requests`.
    """
    with _reading(root, pipeline, partition, table) as given:
        return _Build(root, pipeline, partition, given, again, on_requests).count()


@dataclass(frozen=True)
class _Given:
    """What a build reads.

    Attributes:
        dataset: the rows.
        templates: what they are rendered by.
        lease: says that no other process builds requests of the pipeline.
    """

    dataset: Dataset
    templates: RowTemplates
    lease: Lease


@contextmanager
def _reading(root: Root, pipeline: Pipeline, partition: str, table: Any) -> Iterator[_Given]:
    """What a build reads, while nobody else is at the pipeline's requests."""
    if pipeline.partitions is not None and not partition:
        raise DatasetError(f"{pipeline.source}: partitions: this pipeline has partitions: say which one is to run")
    with leases.hold(root.ledger, f"requests:{pipeline.name}", wait=leases.PATIENCE) as lease:
        _remove_garbage(root, pipeline.name, partition)
        reopen_lost(root, pipeline.name)
        # Not before it is our turn: the newest submission has the newest rows, and DuckDB lets one process in.
        with Dataset(pipeline, table, partition) as dataset:
            templates = pipeline.templates_for(dataset.schema.names, dataset.read_file)
            _check_against_dataset(pipeline, dataset, templates)
            yield _Given(dataset, templates, lease)


def _tell_nobody(rows: int) -> None:
    """Who reads rows and has nobody to tell."""


def _check_against_dataset(pipeline: Pipeline, dataset: Dataset, templates: RowTemplates) -> None:
    pipeline.check_columns(dataset.key, dataset.carried)
    known = {*dataset.schema.names, dataset.key}
    unknown = sorted(templates.reads - known)
    if unknown:
        columns = ", ".join(sorted(known))
        problem = f"the template reads {unknown[0]!r}, no column of {dataset.location}; its columns: {columns}"
        raise pipeline.error(templates.where(unknown[0]), problem)


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
            root.storage.remove_leftovers(*folder, name, name=REQUEST_FILES)
        elif not root.storage.exists(*folder, name, "manifest.json"):
            root.storage.remove(*folder, name)


class _Build:
    """One run of the stage.

    Args:
        on_requests: told what would be submitted, and nothing is written; None to write it.
    """

    def __init__(
        self,
        root: Root,
        pipeline: Pipeline,
        partition: str,
        given: _Given,
        again: AskAgain,
        on_requests: OnRequests | None = None,
    ) -> None:
        dataset, templates = given.dataset, given.templates
        self._dataset, self._lease = dataset, given.lease
        self._again, self._on_requests = again, on_requests
        self._headers = HeaderSets(pipeline, templates.betas)
        self._submission = NewSubmission(root, pipeline, partition, dataset, given.lease, self._headers)
        self._selection = Selection(root, pipeline, partition, again)
        self._submission.report.is_refresh = self._selection.fresh_after is not None
        # What a row must give, and what makes a request of it.
        self._reads, self._render_row = list(templates.reads), templates.params.render
        if (hook := pipeline.hooks.render_request) is not None:
            self._reads = list(dict.fromkeys([dataset.key, *dataset.schema.names, *templates.reads]))
            self._render_row = RequestHook(pipeline, hook, templates.params).render

    def run(self, on_rows: Callable[[int], None]) -> RequestsReport | None:
        """None when request files were sent meanwhile that this build counted as unsent."""
        submission = self._submission
        submission.write(self._read_rows(on_rows), limited=self._again.limit is not None)
        submission.write_manifest(self._selection)
        if submission.register(self._selection):
            return submission.report
        submission.remove()
        return None

    def count(self) -> RequestsReport:
        """The same without writing anything."""
        for _ in self._read_rows(_tell_nobody):
            pass
        return self._submission.report

    def _read_rows(self, on_rows: Callable[[int], None]) -> Iterator[Rendered]:
        """Reads, renders and looks up the dataset's rows, group by group."""
        report = self._submission.report
        keys = KeyCheck(self._dataset)
        names = list(dict.fromkeys([self._dataset.key, *self._dataset.carried, *self._reads]))
        for rows in self._dataset.rows(names):
            self._lease.check()
            row_keys = rows.values(self._dataset.key)
            keys.watch(row_keys)
            digests, rejects, left_out = self._render(rows, row_keys)
            yield rows.table, digests, rejects, left_out
            report.rows += len(row_keys)
            report.rejected += len(rejects)
            on_rows(report.rows)
        keys.finish()
        report.without_partition = self._dataset.without_partition

    def _render(self, rows: Rows, keys: list[Any]) -> tuple[list[bytes | None], Rejects, set[bytes]]:
        """Renders rows and writes the requests that are new.

        Returns:
            Digests and rejects by position, and the digests that a limit left out.
        """
        render, limit = self._render_row, self._submission.limits[1] - _LINE_BYTES
        primed, by_row, number = self._headers.primed, self._headers.by_row, 0
        names = self._reads
        columns = [rows.values(name) for name in names]
        digests: list[bytes | None] = [None] * len(keys)
        rejects = dict(rows.rejects)
        left_out: set[bytes] = set()
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
                left_out.update(self._write_new(group))
                group, size = [], 0
        left_out.update(self._write_new(group))
        return digests, rejects, left_out

    def _write_new(self, group: list[tuple[Any, bytes, bytes, int]]) -> list[bytes]:
        """to submit = desired - answered - in flight - given up, for some rows.

        Args:
            group: (row key, digest, params, number of the header set) of each.

        Returns:
            The digests of requests beyond the limit.
        """
        if not group:
            return []
        packed = pack([digest for _, digest, _, _ in group])
        chosen, attempts, beyond = self._selection.choose(packed, self._submission.report)
        by_row = self._headers.by_row
        kinds = kinds_of(attempts, [group[at][3] for at in chosen.tolist()] if by_row else None)
        for kind in np.unique(kinds).tolist():
            places = chosen[kinds == kind]
            keys, _, params, _ = zip(*(group[at] for at in places.tolist()), strict=True)
            if self._on_requests is not None:
                self._on_requests(packed[places], params)
            else:
                self._submission.add(kind, keys, packed[places], params)
        return [group[at][1] for at in beyond.tolist()]
