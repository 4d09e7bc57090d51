"""Read a file as a pipeline does, and compare what comes of it with the verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.load import load_pipeline

from .cases import Case, Row

_PARAMS = {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


def rows_of(folder: Path, name: str, dataset: Mapping[str, Any]) -> list[Row]:
    """The values of every row of a file, as templates see them.

    Raises:
        DatasetError: The file is refused.
    """
    fields = {"name": "asked", "dataset": {"path": name, **dataset}, "params": _PARAMS}
    pipeline = load_pipeline(fields, folder=folder, source="asked/defs.yaml")
    rows: list[Row] = []
    with Dataset(pipeline) as opened:
        names = [column for column in opened.schema.names if column != opened.key]
        for slice_ in opened.rows(names):
            rows += zip(*(slice_.values(column) for column in names), strict=True)
    return rows


def problem_of(case: Case, folder: Path) -> str | None:
    """What is wrong with what comes of a case; `None` if its verdict holds."""
    (folder / case.name).write_bytes(case.content)
    try:
        rows = rows_of(folder, case.name, case.dataset)
    except DatasetError as error:
        if case.rows is not None:
            return f"refused: {error}"
        return None if re.search(case.refusal, str(error)) else f"the refusal names another reason: {error}"
    if case.rows is None:
        return f"accepted: {rows}"
    return None if rows == case.rows else f"other rows: {rows}"
