"""A pipeline's run in a test: from rows to the table, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from batch_assets.cli.definitions_error import loading
from batch_assets.cli.find_pipeline import BrokenPipelineError, UnknownPipelineError
from batch_assets.cli.headless import run_pipeline
from batch_assets.cli.progress import make_console, watching
from batch_assets.cli.project import LoadedProject, load_project
from batch_assets.core.errors import BatchAssetsError, SettingsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.dataset import DatasetConfig
from batch_assets.core.pipeline.faults import unreadable
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.yaml_values import YAML_LOADER
from batch_assets.core.reading.frames import converter
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.settings import Settings, find_project
from batch_assets.testing.emulator import BatchEmulator

Rows = Sequence[Mapping[str, Any]] | Any
"""Rows of a dataset: a list of dicts, or a table of pandas, polars or Arrow."""
_COMPONENT = "batch_assets.MessageBatchComponent"


class _RowsOfTest(DatasetConfig):
    """A dataset of rows that a test has. A run reads them like those of an asset."""

    @property
    def location(self) -> str:
        """What errors call it."""
        return "the test's table"


class Pipelines:
    """The pipelines that tests name.

    Args:
        folder: The folder of the project.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _project(self) -> LoadedProject:
        with loading():
            return load_project(self._folder)

    def find(self, pipeline: str | Path) -> Pipeline:
        """Return a pipeline.

        Args:
            pipeline: Its name in the project's definitions, or the path of a folder with its pipeline file.

        Raises:
            BatchAssetsError: When there is no such pipeline, or its file is broken.
        """
        if isinstance(pipeline, Path):
            return _of_file(pipeline)
        project = self._project
        if pipeline in project.broken:
            raise BrokenPipelineError(str(project.broken[pipeline]))
        if pipeline not in project.pipelines:
            raise UnknownPipelineError(pipeline, sorted([*project.pipelines, *project.broken]))
        return project.pipelines[pipeline].pipeline


def _of_file(folder: Path) -> Pipeline:
    file = folder if folder.is_file() else folder / "defs.yaml"
    text = file.read_text("utf-8-sig")
    if (problem := unreadable(str(file), text)) is not None:
        raise problem
    document = next(yaml.load_all(text, YAML_LOADER))
    if document.get("type") != _COMPONENT:
        raise SettingsError(
            f"{file} has the type {document.get('type')}: only the project's definitions know it, so give the "
            "name of the pipeline"
        )
    return load_pipeline(document.get("attributes") or {}, folder=file.parent, project=find_project(file.parent))


def for_test(pipeline: Pipeline, rows: Rows | None, partition: str) -> tuple[Pipeline, Any]:
    """Return a pipeline that reads rows of a test, and writes nothing elsewhere, with these rows as a table.

    Row key, carried columns and types stay as the pipeline says.

    Args:
        pipeline: The pipeline.
        rows: The rows; `None` for those of the pipeline's dataset.
        partition: The partition key; "" for none.

    Raises:
        SettingsError: When rows or a partition are missing, or there are no partitions.
    """
    config = pipeline.config
    dataset = config.dataset
    if (pipeline.partitions is not None) != bool(partition):
        has = "has no partitions: leave out" if partition else "has partitions: name one with"
        raise SettingsError(f"{pipeline.source}: the pipeline {has} `partition`")
    if rows is None and dataset.asset is not None:
        raise SettingsError(f"{pipeline.source}: the dataset is the asset {dataset.asset}: give the test rows")
    # A run looks at the table of its sink before it sends anything.
    changes: dict[str, Any] = {"sink": None}
    if rows is not None:
        kept = {name: getattr(dataset, name) for name in ("columns", "types", "bad_rows")}
        key = dataset.key if dataset.key is not None or not dataset.files else dataset.key_column
        changes["dataset"] = _RowsOfTest(asset="rows_of_a_test", key=key, **kept)
    table = list(rows) if isinstance(rows, Sequence) else rows
    return replace(pipeline, config=config.model_copy(update=changes)), table


def cause_elsewhere(error: BatchAssetsError) -> BaseException | None:
    """Return the cause of an error if it is not one of ours: those say all as text, and need no frames."""
    return error.__cause__ if not isinstance(error.__cause__, BatchAssetsError) else None


class RunPipeline:
    """Runs pipelines against the emulator of a test. Call it.

    Args:
        emulator: The emulator.
        pipelines: The pipelines that tests name.
    """

    def __init__(self, emulator: BatchEmulator, pipelines: Pipelines) -> None:
        self._emulator, self._pipelines = emulator, pipelines

    def __call__(
        self, pipeline: str | Path, rows: Rows | None = None, *, partition: str = "", limit: int | None = None
    ) -> pd.DataFrame:
        """Run a pipeline, and return its table.

        It reads the dataset, sends requests, waits for the answers, sends again what failed for a passing reason,
        and writes the table under the root of the test. It writes no sink, sends no notice, and asks for no
        approval. pytest shows its progress with a failure.

        Args:
            pipeline: Its name in the project's definitions, or the path of a folder with its pipeline file.
            rows: The rows to ask about, in place of the pipeline's dataset.
            partition: The partition key, for a pipeline with partitions.
            limit: Send only the first requests. The rows of the others are `pending`.

        Raises:
            BatchAssetsError: When the pipeline is broken, or the run fails.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        try:
            return self._run(pipeline, rows, partition, limit)
        except BatchAssetsError as error:
            raise error.with_traceback(None) from cause_elsewhere(error)

    def _run(self, pipeline: str | Path, rows: Rows | None, partition: str, limit: int | None) -> pd.DataFrame:
        __tracebackhide__ = True
        found, table = for_test(self._pipelines.find(pipeline), rows, partition)
        # Not the settings of a resource: a test never uses another root or another API.
        try:
            with open_root(Settings.from_env()) as root, watching(make_console()) as watcher:
                report = run_pipeline(
                    root, found, partition, watcher, again=AskAgain(limit=limit), is_approved=True, table=table
                )
        finally:
            self._emulator.check()
        table_of_run: pd.DataFrame = converter("pandas")(pq.read_table(report.uri))
        return table_of_run
