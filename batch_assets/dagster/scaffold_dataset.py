"""Look at the dataset of a new pipeline: where it is, which column is the row key, and what is asked about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

import click
import pyarrow as pa
from jinja2.defaults import DEFAULT_NAMESPACE

from batch_assets.core.answers.result_columns import PARTITION, RESULT_NAMES, TOOL_CALLS
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.delimiters import DELIMITERS, other_delimiter
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.template.template_names import ROW
from batch_assets.core.urls import ELSEWHERE, secret_in
from batch_assets.dagster.remedies import error_as_text

# Number of rows that are read. If the key is not unique in later rows, the first run reports it.
_ROWS = 100_000
_DOCUMENTS = 1_000  # names of documents that are looked at
# Names that have another meaning in a template.
_TAKEN = re.compile("and|or|not|in|is|if|else|elif|for|none|true|false|None|True|False|loop|row|load|self")
# The last word of the name of a column that names its row.
_ID = re.compile(
    r"(?i:^|[ _.-])(?i:id|key|uuid|guid|code|number|no|nr|sku|isbn|ean|slug|ref)$"
    r"|[a-z](?:I[dD]|Key|U[Uu][Ii][Dd])$"
)
_KEY_LENGTH = 64  # characters; a longer value is a text, and no name of a row
# In the text about a CSV file whose rows have more fields than the header.
_DELIMITER = "dataset.csv.delimiter"
_GLOB = re.compile(r"[*?\[]")
_ANY: dict[str, Any] = {"model": "any", "max_tokens": 1, "messages": [{"role": "user", "content": "any"}]}


class Subject(StrEnum):
    """What the question of a new pipeline is about, as a word of the prompt."""

    TEXT = "text"
    """The text of a column."""
    ROW = "row"
    """All columns of a row: there is no text column, or the columns are not known."""
    PDF = "document"
    """PDF files."""
    IMAGE = "picture"
    """Pictures."""
    FILE = "text file"
    """Files with text."""


_SUBJECTS = {
    "pdf": Subject.PDF,
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp"), Subject.IMAGE),
    **dict.fromkeys(("txt", "md"), Subject.FILE),
}


@dataclass(frozen=True)
class Columns:
    """The columns that a new pipeline reads.

    Attributes:
        key: The row key; None to number the rows, or for documents.
        text: The column that the prompt contains; None if there is none.
        names: All columns, as far as they are known.
    """

    key: str | None = None
    text: str | None = None
    names: tuple[str, ...] = ()

    @property
    def expression(self) -> str:
        """The template expression that reads the text, or the whole row without one."""
        if self.text is None:
            return "row | tojson"
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.text) and not _TAKEN.fullmatch(self.text)
        is_name = (plain and self.text not in DEFAULT_NAMESPACE) or self.text == ROW
        return self.text if is_name else f"{ROW}[{self.text!r}]"

    @property
    def problems(self) -> list[str]:
        """What the user has to change before the pipeline reads what it should."""
        problems = []
        if self.key is None and ROW_NUMBER in self.names:
            problems.append(
                f"the dataset has a column {ROW_NUMBER!r}, so its rows are not numbered in one of that name: "
                "choose `dataset.key` in defs.yaml"
            )
        if ROW in self.names and self.expression.startswith((f"{ROW}[", f"{ROW} ")):
            reads = "the whole row" if self.text is None else f"the column {self.text!r}"
            problems.append(
                f"the dataset has a column {ROW!r}, which hides the row itself, by which the prompt reads "
                f"{reads}: rename the column {ROW!r} in the dataset"
            )
        return problems

    @property
    def fields(self) -> dict[str, Any]:
        """The fields `key` and `columns` of the dataset, as far as they are needed.

        A column with a name of results gets another one there.
        """
        new = self._new_names()
        fields: dict[str, Any] = {}
        if self.key is not None:
            fields["key"] = {self.key: new[self.key]} if self.key in new else self.key
        if new.keys() - {self.key}:
            fields["columns"] = {name: new.get(name, name) for name in self.names if name != self.key}
        return fields

    def _new_names(self) -> dict[str, str]:
        taken = {name.casefold() for name in (*RESULT_NAMES, PARTITION, TOOL_CALLS.name)}
        new: dict[str, str] = {}
        for name in self.names:
            if name.casefold() in taken:
                new[name] = f"dataset_{name}"
                while new[name] in self.names:
                    new[name] = f"dataset_{new[name]}"
        return new


@dataclass(frozen=True)
class FoundDataset:
    """A dataset, as far as it could be read.

    Attributes:
        fields: The fields of `dataset` that say where it is, with an absolute path or a URL, and `csv` if it has
            another delimiter than a comma.
        columns: The columns to use.
        subject: What the question is about.
        problem: Why it could not be read, or has nothing to choose from; None if it was read.
    """

    fields: Mapping[str, Any]
    columns: Columns = Columns()
    subject: Subject = Subject.ROW
    problem: str | None = None

    def located(self, project: Path) -> dict[str, Any]:
        """Return the fields for a pipeline file in a project."""
        of_files = ("path", "files")
        return {name: located(text, project) if name in of_files else text for name, text in self.fields.items()}


def find_dataset(dataset: str, project: Path) -> FoundDataset:
    """Look at the files that the user names: tables, or else a folder of documents.

    Args:
        dataset: A URL or a path. A relative path is looked up in the project's folder, then in the current one.
        project: The project's folder.

    Raises:
        ClickException: When the URL contains a secret.
    """
    if (secret := secret_in(dataset)) is not None:
        raise click.ClickException(f"--dataset: the URL contains {secret}. {ELSEWHERE}")
    location = located(dataset, project)
    found = look_at({"path": location}, project)
    seems = other_delimiter(found.columns.names)
    for delimiter in DELIMITERS if found.problem is not None and _DELIMITER in found.problem else seems or "":
        divided = look_at({"path": location, "csv": {"delimiter": delimiter}}, project)
        found = divided if len(divided.columns.names) > 1 else found
    if found.problem is not None:
        found = _documents(location, project) or found
    of_files = {name: _absolute(found.fields[name], project) for name in ("path", "files") if name in found.fields}
    return replace(found, fields={**found.fields, **of_files})


def look_at(fields: Mapping[str, Any], project: Path) -> FoundDataset:
    """Read the first rows of a dataset and choose the columns.

    Args:
        fields: The fields of `dataset`.
        project: The project's folder.
    """
    try:
        pipeline = load_pipeline(
            {"name": "new", "dataset": dict(fields), "params": _ANY}, folder=project, source="--dataset"
        )
        with Dataset(pipeline) as opened:
            names = opened.schema.names
            table = _first_rows(opened, names)
    except BatchAssetsError as error:
        return FoundDataset(fields, problem=error_as_text(error).removeprefix("--dataset: "))
    problem = None if len(table) else f"{pipeline.config.dataset.location} has no rows yet"
    key = _key(table)
    text = _text(table, [name for name in names if name != key])
    columns = Columns(key, text, tuple(names))
    return FoundDataset(fields, columns, Subject.TEXT if text is not None else Subject.ROW, problem)


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


def _absolute(location: str, project: Path) -> str:
    return location if "://" in location else str(project / location)


def _documents(location: str, project: Path) -> FoundDataset | None:
    """Return a dataset of the documents at a location, those of the most frequent kind; None if there are none."""
    attributes = {"name": "new", "dataset": {"files": location}, "params": _ANY}
    try:
        with Dataset(load_pipeline(attributes, folder=project, source="--dataset")) as opened:
            paths: list[str] = []
            for rows in opened.rows(["path"]):
                paths += rows.table.column("path").to_pylist()
                if len(paths) >= _DOCUMENTS:
                    break
            names = tuple(opened.schema.names)
    except BatchAssetsError:
        return None
    endings = Counter(PurePosixPath(path).suffix.lower().removeprefix(".") for path in paths)
    known = [(ending, number) for ending, number in endings.most_common() if ending in _SUBJECTS]
    if not known:
        return None
    ending = known[0][0]
    subject = _SUBJECTS[ending]
    if any(_SUBJECTS.get(other) is not subject for other in endings) and not _GLOB.search(location):
        depth = "**/" if any("/" in path for path in paths) else ""
        location = f"{location.rstrip('/')}/{depth}*.{ending}"
    return FoundDataset({"files": location}, Columns(names=names), subject)


def _first_rows(opened: Dataset, names: list[str]) -> pa.Table:
    batches, count = [], 0
    for rows in opened.rows(names):
        batches.append(rows.table)
        count += len(rows.table)
        if count >= _ROWS:
            break
    return pa.Table.from_batches(batches, opened.schema)


def _key(table: pa.Table) -> str | None:
    """Return the first column with the name of an id and values that can be row keys; None if there is none."""
    names = [name for name in table.column_names if name.lower() == "id"]
    names += [name for name in table.column_names if _ID.search(name) and name not in names]
    return next((name for name in names if _names_rows(table[name])), None)


def _names_rows(column: pa.ChunkedArray) -> bool:
    """Whether the values of a column are whole numbers or short texts without spaces, and each is there once."""
    if not len(column) or column.null_count:
        return False
    if _is_text(column.type):
        lengths = pa.compute.utf8_length(column)
        if pa.compute.max(lengths).as_py() > _KEY_LENGTH or pa.compute.min(lengths).as_py() == 0:
            return False
        if pa.compute.any(pa.compute.match_substring_regex(column, r"\s")).as_py():
            return False
    elif not pa.types.is_integer(column.type):
        return False
    return len(column.unique()) == len(column)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(table: pa.Table, names: list[str]) -> str | None:
    """Return the text column with the longest average text; None if there is no text column.

    A column with the name of an id is chosen only if there is no other.
    """
    lengths = {
        name: pa.compute.mean(pa.compute.utf8_length(table[name])).as_py() or 0.0
        for name in names
        if _is_text(table[name].type)
    }
    no_ids = [name for name in lengths if not _ID.search(name)]
    return max(no_ids or lengths, key=lengths.__getitem__, default=None)
