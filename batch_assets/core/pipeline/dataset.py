"""The `dataset` block of a pipeline file: where the rows are and how they are read."""

from __future__ import annotations

import re
from enum import StrEnum
from textwrap import shorten
from typing import Any, Literal, assert_never

from pydantic import Field, field_validator, model_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.io.encodings import check_encoding
from batch_assets.core.pipeline.blocks import MAX_MB
from batch_assets.core.pipeline.variables import check_not_credentials, is_variable
from batch_assets.core.urls import ELSEWHERE, secret_in

# The row keys of pipelines that name none: row numbers from 0, or the path of a document.
ROW_NUMBER = "row_number"
DOCUMENT_KEY = "path"
_SHOWN_QUERY = 60


class DatasetKind(StrEnum):
    """The kinds of datasets. Each is the field of `dataset` that says where the rows are: exactly one is set."""

    PATH = "path"
    """The rows of CSV, JSON Lines or Parquet files."""
    FILES = "files"
    """One row for each document."""
    SQL = "sql"
    """The rows that a query returns."""
    ASSET = "asset"
    """The rows of the table that a Dagster asset returns."""

    @property
    def is_files(self) -> bool:
        """Its rows are in files, which are named by a pattern and can be watched."""
        return self in (DatasetKind.PATH, DatasetKind.FILES)


class CsvConfig(ConfigBlock):
    """The format of CSV and TSV files, if it is not the usual one."""

    delimiter: str | None = Field(
        default=None, description="The character between fields. Default: a comma, or a tab in .tsv files."
    )
    encoding: str = Field(
        default="utf-8", description="Python's name of the encoding, for example latin-1, cp1252 or utf-16."
    )
    quote: str | None = Field(default='"', description="The character around fields; none turns quoting off.")
    escape: str | None = Field(
        default=None,
        description="The character that makes a quote, delimiter, line break or another of its kind after it "
        "literal, for example a backslash. Before anything else it is text.",
    )
    header: list[str] | None = Field(
        default=None, description="Column names, for files whose first line is a row."
    )
    names: list[str] | None = Field(
        default=None, description="Column names in place of those in the header, for example if two are equal."
    )
    skip: int = Field(default=0, ge=0, description="The number of lines before the header to leave out.")
    null_values: list[str] = Field(
        default=[], description="Texts that mean null, for example n/a. Empty fields always do."
    )
    rows_in_quotes: bool = Field(
        default=False,
        description="Accept a quoted field with lines that look like rows. Otherwise it is an error, because "
        "a quote that was meant as text has this effect.",
    )

    @field_validator("delimiter", "quote", "escape", mode="before")
    @classmethod
    def _is_one_character(cls, text: Any) -> Any:
        if text in (None, "none"):
            return None
        character = "\t" if text == "\\t" else text
        if not isinstance(character, str) or len(character) != 1 or not character.isascii() or character in "\r\n":
            raise ValueError(f"{text!r}: give one ASCII character, but no line break")
        return character

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, encoding: str) -> str:
        return check_encoding(encoding)

    @field_validator("header", "names")
    @classmethod
    def _names_columns(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and (not names or not all(names) or len(set(names)) < len(names)):
            raise ValueError("give every column a name, and a different one")
        return names

    @model_validator(mode="after")
    def _are_different(self) -> CsvConfig:
        characters = [
            character for character in (self.delimiter, self.quote, self.escape) if character is not None
        ]
        if len(set(characters)) < len(characters):
            raise ValueError("delimiter, quote and escape must be different characters")
        if self.header is not None and self.names is not None:
            raise ValueError("header is for files without a header, names for files with one: give one of them")
        return self


class DatasetConfig(ConfigBlock):
    """The input table. One of path, files, sql and asset says where its rows are."""

    may_be_empty = frozenset({"key"})  # a column may have no name, see `_names_results`
    path: str | None = Field(
        default=None,
        description="CSV, TSV, JSON Lines (also .gz, .zst, .bz2) or Parquet: a file, folder, glob or fsspec URL.",
    )
    files: str | None = Field(
        default=None,
        description="Documents: a folder, glob or fsspec URL. Each is a row with columns path, name and bytes.",
    )
    sql: str | None = Field(
        default=None, description="A query, or the name of a .sql file in the pipeline's folder. Needs url_env."
    )
    url_env: str | None = Field(
        default=None, description="Environment variable that holds the SQLAlchemy URL of the query's database."
    )
    asset: str | None = Field(
        default=None,
        description="Key of the Dagster asset that returns the table, with slashes between its parts.",
    )
    csv: CsvConfig | None = Field(default=None, description="Format of the CSV files of path.")
    key: str | dict[str, str] | None = Field(
        default=None,
        description="Column whose unique value names a row, or a map {column: new name}. Default: row_number, "
        "from 0; for files, path.",
    )
    columns: list[str] | dict[str, str] | None = Field(
        default=None,
        description="Columns to copy into the results, a list or a map {column: new name}. Default: all columns, "
        "for files all but bytes.",
    )
    types: dict[str, str] = Field(default={}, description="Arrow types by column, for example {zip: string}.")
    bad_rows: Literal["refuse", "reject"] = Field(
        default="refuse",
        description="What happens to rows that cannot be read, and to values that do not fit types: refuse the "
        "dataset, or reject the row.",
    )
    missing_columns: Literal["refuse"] | None = Field(
        default="refuse",
        description="What happens if a CSV or Parquet file of path lacks a column of the others, or a JSON "
        "Lines file has none of theirs: refuse the dataset, or null: its rows have null in the column.",
    )

    max_file_mb: float = Field(
        default=MAX_MB,
        gt=0,
        le=MAX_MB,
        description="Maximum size of a document of files, or of a file that a row names for file_base64, in "
        "megabytes (10^6 bytes). The row of a larger file is rejected.",
    )

    @field_validator("path", "files")
    @classmethod
    def _has_no_secret(cls, url: str | None) -> str | None:
        if url is not None and (secret := secret_in(url)) is not None:
            raise ValueError(
                f"the URL contains {secret}, which would be written to manifests, metadata and errors. {ELSEWHERE}"
            )
        return url

    @field_validator("url_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not is_variable(name):
            raise ValueError(
                "this is not the name of an environment variable. Put the URL into one, such as WAREHOUSE_URL, "
                "and give its name, because URLs contain passwords"
            )
        return check_not_credentials(name) if name is not None else None

    @field_validator("key")
    @classmethod
    def _names_one_column(cls, key: str | dict[str, str] | None) -> str | dict[str, str] | None:
        if isinstance(key, dict) and len(key) != 1:
            raise ValueError(f"a row key is one column, written as {{column: new name}}; got {len(key)} columns")
        return key

    @field_validator("key", "columns")
    @classmethod
    def _names_results(cls, names: str | list[str] | dict[str, str] | None) -> Any:
        given = [names] if isinstance(names, str) else names.values() if isinstance(names, dict) else names or []
        if not all(given):
            raise ValueError(
                "a column of the results needs a name: give it, with {'': name} for a column that has none"
            )
        return names

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> DatasetConfig:
        kinds = [kind for kind in DatasetKind if getattr(self, kind) is not None]
        if len(kinds) != 1:
            *others, last = DatasetKind
            raise ValueError(
                f"give exactly one of {', '.join(others)} and {last}; got {' and '.join(kinds) or 'none'}"
            )
        if self.sql is not None and self.url_env is None:
            raise ValueError("sql needs url_env, the environment variable that holds the database's URL")
        applies = {
            "url_env": DatasetKind.SQL,
            "csv": DatasetKind.PATH,
            "missing_columns": DatasetKind.PATH,
        }
        for name, kind in applies.items():
            if getattr(self, name) != type(self).model_fields[name].default and kinds != [kind]:
                raise ValueError(f"{name} goes with {kind}, not with {kinds[0]}")
        if self.bad_rows != "refuse" and kinds == [DatasetKind.FILES]:
            raise ValueError("bad_rows goes with path, sql and asset, not with files")
        if self.max_file_mb != MAX_MB and not kinds[0].is_files:
            raise ValueError(f"max_file_mb goes with path and files, not with {kinds[0]}")
        return self

    @property
    def kind(self) -> DatasetKind:
        """The field that says where the rows are."""
        return next(kind for kind in DatasetKind if getattr(self, kind) is not None)

    @property
    def pattern(self) -> str:
        """The path, folder, glob or URL of the files; "" for a dataset that is not in files."""
        return self.path or self.files or ""

    @property
    def key_column(self) -> str:
        """The column of the dataset that is the row key."""
        if self.key is None:
            return DOCUMENT_KEY if self.kind is DatasetKind.FILES else ROW_NUMBER
        return self.key if isinstance(self.key, str) else next(iter(self.key))

    @property
    def key_name(self) -> str:
        """The column of results that is the row key."""
        return next(iter(self.key.values())) if isinstance(self.key, dict) else self.key_column

    @property
    def max_file_bytes(self) -> int:
        """The most bytes of a document, or of a file that a row names."""
        return int(self.max_file_mb * 1_000_000)

    @property
    def query_file(self) -> str | None:
        """The name of the file with the query; `None` if the query is written in the pipeline file."""
        return self.sql if self.sql is not None and re.fullmatch(r"\S+\.sql", self.sql) else None

    @property
    def location(self) -> str:
        """Where the rows are, in a few words, for texts."""
        match self.kind:
            case DatasetKind.PATH | DatasetKind.FILES:
                return self.pattern
            case DatasetKind.SQL:
                return self.query_file or shorten(self.sql or "", _SHOWN_QUERY, placeholder=" …")
            case DatasetKind.ASSET:
                return f"the asset {self.asset}"
            case _:
                assert_never(self.kind)
