"""Snapshots of rendered requests: a file that is compared, and reviewed when a prompt changes."""

from __future__ import annotations

import difflib
import os
import secrets
from pathlib import Path

from batch_assets.cli.request_lines import request_lines
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.requests.preview import previewed_rows
from batch_assets.core.settings import Settings
from batch_assets.testing.runs import Pipelines, Rows, cause_elsewhere, for_test

UPDATE = "--update-prompts"
"""The option of pytest that writes the snapshots."""
FOLDER = "prompts"
"""The folder of the snapshots, beside the test's file."""
_ROWS = 3


class PromptSnapshot:
    """Compares requests with a file beside the test. Call it.

    Args:
        folder: The folder of the snapshots.
        pipelines: The pipelines that tests name.
        update: Whether to write the file in place of comparing it.
    """

    def __init__(self, folder: Path, pipelines: Pipelines, *, update: bool) -> None:
        self._folder, self._pipelines, self._update = folder, pipelines, update

    def __call__(
        self,
        pipeline: str | Path,
        rows: Rows | None = None,
        *,
        partition: str = "",
        most: int = _ROWS,
        name: str | None = None,
    ) -> None:
        """Compare the requests of the first rows with `prompts/<name>.txt`. Nothing is sent.

        Args:
            pipeline: Its name in the project's definitions, or the path of a folder with its pipeline file.
            rows: The rows to render, in place of the pipeline's dataset.
            partition: The partition key, for a pipeline with partitions.
            most: The most rows.
            name: The name of the file; by default that of the pipeline.

        Raises:
            AssertionError: When the file does not exist, or differs.
            BatchAssetsError: When the pipeline is broken, or does not fit the rows.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        try:
            found, table = for_test(self._pipelines.find(pipeline), rows, partition)
            shown = previewed_rows(Settings.from_env(), found, partition, most=most, table=table)
            text = "".join(f"{line}\n" for row in shown for line in request_lines(row))
        except BatchAssetsError as error:
            raise error.with_traceback(None) from cause_elsewhere(error)
        if not text:
            raise AssertionError(f"{found.source}: the dataset has no rows, so there is no request to compare")
        file = self._folder / f"{name or found.name}.txt"
        if self._update:
            _write(file, text)
            return
        if not file.is_file():
            raise AssertionError(f"{file} does not exist: run pytest with {UPDATE}, and review the file")
        before = file.read_text("utf-8")
        if before != text:
            changes = difflib.unified_diff(before.splitlines(), text.splitlines(), str(file), "now", lineterm="")
            difference = "\n".join(changes)
            raise AssertionError(f"requests have changed; to accept that, run pytest with {UPDATE}\n{difference}")


def _write(file: Path, text: str) -> None:
    """Write a snapshot atomically, unless it is as it was."""
    if file.is_file() and file.read_text("utf-8") == text:
        return
    file.parent.mkdir(exist_ok=True)
    scratch = file.with_name(f".{file.name}.{secrets.token_hex(6)}.tmp")
    try:
        with scratch.open("x", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
