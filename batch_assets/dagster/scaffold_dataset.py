"""Choose the columns of a new pipeline: which column is the row key, and which has the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from jinja2.defaults import DEFAULT_NAMESPACE

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.urls import ELSEWHERE, secret_in
from batch_assets.dagster.remedies import error_as_text

# Number of rows that are read. If the key is not unique in later rows, the first run reports it.
_ROWS = 100_000
# Names that have another meaning in a template.
_TAKEN = re.compile("and|or|not|in|is|if|else|elif|for|none|true|false|None|True|False|loop|row|load|self")


@dataclass(frozen=True)
class Columns:
    """The columns that a new pipeline reads.

    Attributes:
        key: The row key; None to number the rows.
        text: The column that the prompt contains.
    """

    key: str | None
    text: str

    @property
    def expression(self) -> str:
        """The template expression that reads the text."""
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.text) and not _TAKEN.fullmatch(self.text)
        return self.text if plain and self.text not in DEFAULT_NAMESPACE else f"row[{self.text!r}]"


@dataclass(frozen=True)
class FoundDataset:
    """A dataset that was read.

    Attributes:
        location: An absolute path or a URL.
        columns: The columns to use.
    """

    location: str
    columns: Columns


def find_dataset(dataset: str, project: Path) -> FoundDataset:
    """Read the dataset that the user names.

    Args:
        dataset: A URL or a path. A relative path is looked up in the project's folder, then in the current one.
        project: The project's folder.

    Raises:
        ClickException: When the dataset cannot be read or has no columns.
    """
    if (secret := secret_in(dataset)) is not None:
        raise click.ClickException(f"--dataset: the URL contains {secret}. {ELSEWHERE}")
    location = located(dataset, project)
    absolute = location if "://" in location else str(project / location)
    return FoundDataset(absolute, _columns_of(location, project))


def located(dataset: str, project: Path) -> str:
    """Return the path for the pipeline file: relative to the project's folder if inside it, else absolute."""
    if "://" in dataset:
        return dataset
    path = Path(dataset)
    if not path.is_absolute() and not (project / path).exists() and path.exists():
        path = path.resolve()
    if path.is_absolute() and path.is_relative_to(project.resolve()):
        path = path.relative_to(project.resolve())
    return path.as_posix()


def _columns_of(dataset: str, project: Path) -> Columns:
    """Read the dataset's first rows and choose the columns."""
    attributes = {"name": "new", "dataset": {"path": dataset}, "params": _ANY}
    try:
        pipeline = load_pipeline(attributes, folder=project, source="--dataset")
        with Dataset(pipeline) as opened:
            names = opened.schema.names
            table = _first_rows(opened, names)
    except BatchAssetsError as error:
        raise click.ClickException(error_as_text(error)) from None
    if not names:
        raise click.ClickException(f"--dataset: {dataset} has no columns")
    key = _key(table)
    return Columns(key, _text(table, [name for name in names if name != key] or names))


_ANY: dict[str, Any] = {"model": "any", "max_tokens": 1, "messages": [{"role": "user", "content": "any"}]}


def _first_rows(opened: Dataset, names: list[str]) -> pa.Table:
    batches, count = [], 0
    for rows in opened.rows(names):
        batches.append(rows.table)
        count += len(rows.table)
        if count >= _ROWS:
            break
    return pa.Table.from_batches(batches, opened.schema)


def _key(table: pa.Table) -> str | None:
    """Return the first unique column among those named like an id and the first one; None if there is none."""
    ids = [name for name in table.column_names if name.lower() == "id"]
    ids += [name for name in table.column_names if re.search(r"(_id|[a-z]I[dD]|[ -]id)$", name, re.ASCII)]
    for name in [*ids, table.column_names[0]]:
        column = table[name]
        if pa.types.is_nested(column.type) or column.null_count:
            continue
        if len(column.unique()) == len(column):
            return str(name)
    return None


def _text(table: pa.Table, names: list[str]) -> str:
    """Return the text column with the longest average text; the first column if there is no text column."""
    texts = [name for name in names if pa.types.is_string(table[name].type)]
    texts += [name for name in names if pa.types.is_large_string(table[name].type)]
    if not texts:
        return names[0]
    lengths = {name: pa.compute.mean(pa.compute.utf8_length(table[name])).as_py() or 0.0 for name in texts}
    return max(texts, key=lengths.__getitem__)
