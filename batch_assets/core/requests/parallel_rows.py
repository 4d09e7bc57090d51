"""Render rows in processes of their own, if that takes longer than to send them there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.core.errors import ErrorType
from batch_assets.core.io.worker_processes import WorkerProcesses
from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.pipeline.pipeline import NO_HOOKS, Pipeline
from batch_assets.core.template.media_check import check_media
from batch_assets.core.template.rendering import Rendering
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.template.values import RowRejectedError

# Fewer rows are rendered before processes have imported what they need.
_LEAST_ROWS = 1000
_ROWS_AT_ONCE = 256

Problem = tuple[ErrorType, str]
Rows = tuple[Mapping[str, Sequence[Any]], Sequence[Collection[str] | None], Sequence[bool]]
"""Rows for a process: the values by column, the columns that each row has, and which rows are rendered."""


@dataclass(frozen=True)
class RenderedParams:
    """A row that another process has rendered.

    Attributes:
        params: Its params as JSON; `None` if it was rejected.
        problem: Why it was rejected, or what is wrong with its media; `None` if nothing is.
    """

    params: bytes | None
    problem: Problem | None = None


@dataclass(frozen=True)
class _Given:
    """What a process needs to compile the templates as they are in the run.

    Attributes:
        config: The fields of the pipeline, with the schema that requests contain as `output_schema`.
        folder: The folder of its files.
        project: Its project.
        source: Its file.
        columns: The columns of the dataset, in order.
        rendering: The version of the rendering.
        shapes: See `Template`.
        files: The files beside the pipeline that the templates have read: name to digest.
    """

    config: Mapping[str, Any]
    folder: Path
    project: Path
    source: str
    columns: Sequence[str]
    rendering: Rendering
    shapes: Collection[frozenset[str]]
    files: Mapping[str, str]


class ParallelRows:
    """Renders the rows of a dataset in several processes. It is a context manager.

    Rows whose templates read files of the dataset's folder are left to the run's own process.

    Args:
        count: The number of processes.
        pipeline: The pipeline.
        templates: Its templates, compiled for the dataset.
        columns: The names of the dataset's columns, in order.
        rendering: The version of the rendering that they were compiled for.
        shapes: The keys that objects of the dataset have, for each of their locations.
    """

    def __init__(
        self,
        count: int,
        pipeline: Pipeline,
        templates: RowTemplates,
        columns: Sequence[str],
        rendering: Rendering,
        shapes: Collection[frozenset[str]],
    ) -> None:
        config = {name: getattr(pipeline.config, name) for name in PipelineConfig.model_fields}
        # The schema as the run has loaded it, if it sends one. Its file or model may have changed since.
        config["output_schema"] = pipeline.sent_schema if pipeline.config.output_schema is not None else None
        given = _Given(
            config,
            pipeline.folder,
            pipeline.project,
            pipeline.source,
            list(columns),
            rendering,
            list(shapes),
            templates.params.files,
        )
        self._processes = WorkerProcesses(
            count, rows_renderer, given, task="renders rows", undone="This build registered nothing"
        )
        self._rows = 0

    def __enter__(self) -> ParallelRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.__exit__()

    def render(
        self,
        columns: Mapping[str, Sequence[Any]],
        present: Sequence[Collection[str]] | None,
        is_wanted: Sequence[bool],
    ) -> Iterator[RenderedParams | None]:
        """Render the rows of a slice.

        Args:
            columns: The values by column.
            present: The columns that each row has; `None` if each has all.
            is_wanted: Which rows are rendered.

        Yields:
            Each row, in order; `None` for a row that is not rendered here.

        Raises:
            WorkerProcessError: When a process has failed or was killed.
        """
        rows = len(is_wanted)
        self._rows += sum(is_wanted)
        if self._rows < _LEAST_ROWS:
            yield from [None] * rows
            return
        tasks = (
            (
                {name: values[start : start + _ROWS_AT_ONCE] for name, values in columns.items()},
                present[start : start + _ROWS_AT_ONCE] if present is not None else None,
                is_wanted[start : start + _ROWS_AT_ONCE],
            )
            for start in range(0, rows, _ROWS_AT_ONCE)
        )
        for rendered in self._processes.map(tasks):
            yield from rendered


def rows_renderer(given: _Given) -> Callable[[Rows], list[RenderedParams | None]]:
    """Compile the templates in a process of their own.

    Returns:
        Renders some rows. `None` for a row that has to be rendered by the run.

    Raises:
        ValueError: When a file beside the pipeline has changed since the run compiled them.
    """
    config = PipelineConfig.model_construct(**given.config)
    pipeline = Pipeline(config, given.folder, given.project, given.source, hooks=NO_HOOKS)
    files = _FilesOfRows()
    templates = pipeline.templates_for(given.columns, files.read, given.rendering, given.shapes)
    template = templates.params
    if template.files != given.files:
        changed = sorted(name for name, _ in template.files.items() ^ given.files.items())
        raise ValueError(f"{given.folder / changed[0]} has changed during the run: run it again")

    def rendered(row: dict[str, Any], present: Collection[str] | None) -> RenderedParams | None:
        files.are_wanted = False
        params = problem = None
        try:
            params = template.render(row, present)
            if template.may_hold_media:
                check_media(params, template.encoded)
        except RowRejectedError as error:
            problem = (error.error_type, error.message)
        return RenderedParams(params, problem) if not files.are_wanted else None

    def render(rows: Rows) -> list[RenderedParams | None]:
        columns, present, is_wanted = rows
        names = list(columns)
        values = zip(*columns.values(), strict=True) if columns else iter([()] * len(is_wanted))
        return [
            rendered(dict(zip(names, row, strict=True)), own) if wanted else None
            for row, own, wanted in zip(values, present or [None] * len(is_wanted), is_wanted, strict=True)
        ]

    return render


class _FilesOfRows:
    """The files of the dataset's folder, which only the run reads.

    Attributes:
        are_wanted: Whether the row has asked for one.
    """

    def __init__(self) -> None:
        self.are_wanted = False

    def read(self, _: str) -> bytes:
        self.are_wanted = True
        raise ValueError("this process does not read files of the dataset")
