"""Render the dataset's rows: the params and the digest of each request, or the reason why a row has none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.slices import bounds_by_weight
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import HeaderSets
from batch_assets.core.requests.hook import RequestHook
from batch_assets.core.requests.parallel_rows import ParallelRows, RenderedParams
from batch_assets.core.requests.submission import Rejects
from batch_assets.core.store.digests import digests_of
from batch_assets.core.template.media_check import check_media
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError

_MEGABYTE = 1_000_000
# The most bytes that the body of a batch with one request has on top of its params: the custom_id and brackets.
_LINE_BYTES = 200


def row_templates(pipeline: Pipeline, dataset: Dataset, rendering: Rendering = CURRENT) -> RowTemplates:
    """Return a pipeline's templates, compiled for a dataset.

    Raises:
        ConfigError: When a template reads a column by a name that Jinja reserves.
    """
    return pipeline.templates_for(dataset.schema.names, dataset.read_file, rendering, dataset.shapes)


RenderedRow = tuple[int, bytes, bytes, int]
"""The request of one row: its position in the slice, its digest, its params as JSON, and its header set."""
# Requests are looked up in groups. A group ends when it reaches one of these limits.
_GROUP_ROWS = 4096
_GROUP_BYTES = 4 << 20


@dataclass(frozen=True)
class RenderedGroup:
    """The requests of some rows. All attributes have the same length.

    Attributes:
        positions: The positions of the rows in their slice.
        digests: The digests of the requests.
        params: Their params as JSON.
        header_sets: The numbers of their header sets.
    """

    positions: Sequence[int]
    digests: Sequence[bytes]
    params: Sequence[bytes]
    header_sets: Sequence[int]


class RowRenderer:
    """Renders the rows of a dataset with a pipeline's templates and its own code.

    Args:
        pipeline: The pipeline.
        dataset: The dataset.
        templates: The templates, compiled for the dataset.
        rendering: The version of the rendering that they were compiled for.
        is_kept: Whether a request with this digest is answered or in flight. It keeps its row even if its media
            would be rejected now: nothing is sent.
        processes: The number of processes that render rows one by one, if it is more than one.

    Attributes:
        headers: The header sets of the rows so far.
        reads: The columns that it needs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        dataset: Dataset,
        templates: RowTemplates,
        rendering: Rendering = CURRENT,
        is_kept: Callable[[bytes], bool] = lambda _: False,
        processes: int = 1,
    ) -> None:
        self._is_kept = is_kept
        self.headers = HeaderSets(pipeline, templates.betas)
        self._rendering = rendering
        self._limit = int(pipeline.config.batching.max_mb * _MEGABYTE) - _LINE_BYTES
        self._template = templates.params
        self.reads, self._render = list(templates.reads), templates.params.render
        self._has_hook = pipeline.hooks.render_request is not None
        if (hook := pipeline.hooks.render_request) is not None:
            self.reads = list(dict.fromkeys([dataset.key, *dataset.schema.names, *templates.reads]))
            self._render = RequestHook(pipeline, hook, templates.params).render
        is_plain = not self._has_hook and not self.headers.by_row
        self._flat = templates.params.flat if is_plain else None
        # The pipeline's own code runs in its own process, and all rows have the same version of a file.
        self._parallel: ParallelRows | None = None
        if processes > 1 and not self._has_hook and not templates.picks_files:
            self._parallel = ParallelRows(
                processes, pipeline, templates, dataset.schema.names, rendering, dataset.shapes
            )

    def close(self) -> None:
        """End the processes that render rows."""
        if self._parallel is not None:
            self._parallel.__exit__()

    def groups(self, rows: Rows, rejects: Rejects) -> Iterator[RenderedGroup]:
        """Yield the requests of a slice of rows, in groups.

        Args:
            rows: The rows.
            rejects: Filled with the rows that have no request.
        """
        columns = self._columns(rows)
        rejects.update(rows.rejects)
        escaped = self._flat.escaped(columns) if self._flat is not None else None
        if escaped is None:
            yield from _grouped(self._rows(rows, columns, rejects))
            return
        sizes = np.array(escaped.sizes(), np.int64)
        odd = escaped.odd.union(np.flatnonzero(sizes > self._limit).tolist()) - rejects.keys()
        odd_rows = (self._row(at, _values_at(columns, at), None, rejects, None) for at in sorted(odd))
        yield from _grouped(row for row in odd_rows if row is not None)
        left_out = odd | rejects.keys()
        primed = self.headers.primed[0]
        for start, end in bounds_by_weight(sizes, _GROUP_ROWS, _GROUP_BYTES):
            positions: Sequence[int] = range(start, end)
            params = escaped.params(start, end)
            if left_out:
                positions = [position for position in positions if position not in left_out]
                params = [params[position - start] for position in positions]
            yield RenderedGroup(positions, digests_of(primed, params), params, [0] * len(params))

    def render(self, rows: Rows, rejects: Rejects) -> Iterator[RenderedRow]:
        """Yield the requests of a slice of rows, one by one.

        Args:
            rows: The rows.
            rejects: Filled with the rows that have no request.
        """
        columns = self._columns(rows)
        rejects.update(rows.rejects)
        yield from self._rows(rows, columns, rejects)

    def _columns(self, rows: Rows) -> dict[str, list[Any]]:
        before = {Rendering.STORED: rows.values_at_first, Rendering.OWN: rows.values_before}
        get = before.get(self._rendering, rows.values)
        return {name: get(name) for name in self.reads}

    def _rows(self, rows: Rows, columns: dict[str, list[Any]], rejects: Rejects) -> Iterator[RenderedRow]:
        present, names = rows.present, list(columns)
        values = zip(*columns.values(), strict=True) if columns else iter([()] * len(rows.table))
        elsewhere: Iterable[RenderedParams | None] = repeat(None)
        if self._parallel is not None:
            is_wanted = [position not in rejects for position in range(len(rows.table))]
            elsewhere = self._parallel.render(columns, present, is_wanted)
        for position, (row, done) in enumerate(zip(values, elsewhere)):  # noqa: B905  one of them has no end
            if position in rejects:
                continue
            own = present[position] if present is not None else None
            named = dict(zip(names, row))  # noqa: B905  equal lengths, and this is the hot path
            rendered = self._row(position, named, own, rejects, done)
            if rendered is not None:
                yield rendered

    def _row(
        self,
        position: int,
        named: Row,
        own: Collection[str] | None,
        rejects: Rejects,
        done: RenderedParams | None,
    ) -> RenderedRow | None:
        """Return the request of a row, or reject the row.

        Args:
            position: Its position.
            named: Its values by column.
            own: See `Template.render`.
            rejects: The rejects so far.
            done: The row as another process has rendered it; `None` to render it here.
        """
        headers, number = self.headers, 0
        try:
            if done is None:
                params = self._render(named, own)
            elif done.params is not None:
                params = done.params
            else:
                assert done.problem is not None
                raise RowRejectedError(*done.problem)
            if len(params) > self._limit:
                problem = f"the request is {len(params)} bytes; batching.max_mb allows {self._limit}"
                raise RowRejectedError(ErrorType.REQUEST_TOO_LARGE, problem)
            if headers.by_row:
                number = headers.number_of(named, own)
            hash_ = headers.primed[number].copy()
            hash_.update(params)
            digest = hash_.digest()
            if done is not None:
                if done.problem is not None and not self._is_kept(digest):
                    raise RowRejectedError(*done.problem)
            elif self._has_hook or self._template.may_hold_media:
                self._check_media(params, digest)
        except RowRejectedError as error:
            rejects[position] = (error.error_type, error.message)
            return None
        return position, digest, params, number

    def _check_media(self, params: bytes, digest: bytes) -> None:
        try:
            check_media(params, self._template.encoded)
        except RowRejectedError:
            if not self._is_kept(digest):
                raise


def _values_at(columns: dict[str, list[Any]], position: int) -> Row:
    return {name: values[position] for name, values in columns.items()}


def _grouped(rows: Iterator[RenderedRow]) -> Iterator[RenderedGroup]:
    """Yield rows in groups."""
    group: list[RenderedRow] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row[2])
        if len(group) == _GROUP_ROWS or size > _GROUP_BYTES:
            yield RenderedGroup(*zip(*group, strict=True))
            group, size = [], 0
    if group:
        yield RenderedGroup(*zip(*group, strict=True))
