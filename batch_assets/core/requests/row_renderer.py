"""Render the dataset's rows: the params and the digest of each request, or the reason why a row has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import ErrorType
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import HeaderSets
from batch_assets.core.requests.hook import RequestHook
from batch_assets.core.requests.submission import Rejects
from batch_assets.core.template.media_check import check_media
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.row_templates import RowTemplates
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


class RowRenderer:
    """Renders the rows of a dataset with a pipeline's templates and its own code.

    Args:
        pipeline: The pipeline.
        dataset: The dataset.
        templates: The templates, compiled for the dataset.
        rendering: The version of the rendering that they were compiled for.
        is_kept: Whether a request with this digest is answered or in flight. It keeps its row even if its media
            would be rejected now: nothing is sent.

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

    def render(self, rows: Rows, rejects: Rejects) -> Iterator[RenderedRow]:
        """Yield the requests of a slice of rows.

        Args:
            rows: The rows.
            rejects: Filled with the rows that have no request.
        """
        render, limit, names = self._render, self._limit, self.reads
        template, has_hook = self._template, self._has_hook
        headers, number = self.headers, 0
        get = rows.stored_values if self._rendering == Rendering.STORED else rows.values
        columns = [get(name) for name in names]
        present = rows.present
        rejects.update(rows.rejects)
        values = zip(*columns, strict=True) if columns else iter([()] * len(rows.table))
        for position, row in enumerate(values):
            if position in rejects:
                continue
            own = present[position] if present is not None else None
            try:
                named = dict(zip(names, row))  # noqa: B905  equal lengths, and this is the hot path
                params = render(named, own)
                if len(params) > limit:
                    problem = f"the request is {len(params)} bytes; batching.max_mb allows {limit}"
                    raise RowRejectedError(ErrorType.REQUEST_TOO_LARGE, problem)
                if headers.by_row:
                    number = headers.number_of(named, own)
                hash_ = headers.primed[number].copy()
                hash_.update(params)
                digest = hash_.digest()
                if template.may_hold_media or has_hook:
                    self._check_media(params, digest)
            except RowRejectedError as error:
                rejects[position] = (error.error_type, error.message)
                continue
            yield position, digest, params, number

    def _check_media(self, params: bytes, digest: bytes) -> None:
        try:
            check_media(params, self._template.encoded)
        except RowRejectedError:
            if not self._is_kept(digest):
                raise
