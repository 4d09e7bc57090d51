"""Which files of a folder are tables. A file that may hold rows is an error, and is not left out silently.

Left out are only files that other programs and people put beside tables: names that begin with an underscore, such
as _SUCCESS, texts about the tables, checksums, images and PDFs that rows may name, and empty files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from urllib.parse import unquote

from batch_assets.core.dataset.data_file import COMPRESSIONS, DataFile
from batch_assets.core.errors import DatasetError

_BESIDE = re.compile(
    r"(?:readme|licen[cs]e|notice|authors|changelog|manifest|thumbs\.db|desktop\.ini|(?:md5|sha\d+)sums)(?:\..*)?"
    r"|.+\.(?:md|rst|crc|md5|sha1|sha256|sha512|asc|sig)"
    # Programs, their settings and reports, and media.
    r"|.+\.(?:py|ipynb|r|sh|sql|ya?ml|toml|ini|cfg|log|lock|html?|css|js|svg|tiff?|bmp|mp[34]|wav|mov|avi|ogg)"
    # What the Messages API accepts, so rows may name it for `file_base64`.
    r"|.+\.(?:gif|jpe?g|pdf|png|webp)",
    re.IGNORECASE | re.DOTALL,
)
# Formats in which a list of files and not the folder says which rows there are.
_LOGS = {
    re.compile(r"(?:.*/)?_delta_log/[^/]+\.json", re.DOTALL): "a Delta table",
    re.compile(r"(?:.*/)?metadata/[^/]+\.metadata\.json", re.DOTALL): "an Iceberg table",
}
_SHOWN = 5


def tables_in(
    files: Mapping[str, tuple[DataFile, int]], is_table: Callable[[DataFile], bool], path: str, endings: str
) -> list[DataFile]:
    """Return the tables of a folder in path order.

    Args:
        files: The files and their sizes in bytes, by their paths relative to the folder, in path order.
        is_table: Whether a file can be read as a table, by its name.
        path: The folder as the pipeline file has it, for errors.
        endings: The endings of tables, for errors.

    Raises:
        DatasetError: When a file may hold rows and cannot be read, when two are one table, or when not all files
            of the folder count.
    """
    _check_no_log(files, path)
    tables = {name: file for name, (file, _) in files.items() if not _is_marker(name) and is_table(file)}
    others = [
        name
        for name, (_, size) in files.items()
        if name not in tables and size and not _is_marker(name) and not _BESIDE.fullmatch(name.rsplit("/", 1)[-1])
    ]
    if others:
        raise DatasetError(
            f"{path} has files whose names are not those of tables: {shown_names(others)}. A table's name ends in "
            f"{endings}. Convert them or move them away, or read a part of the folder, {_pattern(path, tables)}"
        )
    by_plain_name: dict[str, str] = {}
    for name, file in tables.items():
        other = by_plain_name.setdefault(file.plain_name, name)
        if other != name:
            raise DatasetError(
                f"{path} has {other!r} and {name!r}, which look like one table twice: remove one of them, or read "
                f"a part of the folder, {_pattern(path, [name])}"
            )
    return list(tables.values())


def check_folder_names(columns: Mapping[str, Collection[str]], path: str) -> None:
    """Check that no column is in the names of folders alone, as in year=2024/part.parquet.

    Args:
        columns: The columns of each table by its path relative to the folder, in path order.
        path: The folder as the pipeline file has it, for errors.

    Raises:
        DatasetError: When there is one. pandas, Spark and others would read it.
    """
    for relative, names in columns.items():
        for folder in relative.split("/")[:-1]:
            name, sign, _ = folder.partition("=")
            column = unquote(name)
            if sign and column and column not in names:
                raise DatasetError(
                    f"{path} has a folder {folder!r}, whose name would be a column {column!r} in pandas and other "
                    "programs, but only columns within the files are read. To read the rows without this column, "
                    f"write a pattern {_pattern(path, [relative])}. To have it, write it into the files, or read "
                    "them by a query, with hive_partitioning in DuckDB"
                )


def shown_names(names: list[str]) -> str:
    """Return some names for texts, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _is_marker(relative: str) -> bool:
    """Whether another program left the file beside the tables, such as _SUCCESS or _logs/…

    A folder such as _year=2024 has rows.
    """
    *folders, name = relative.split("/")
    return name.startswith("_") or any(part.startswith("_") and "=" not in part for part in folders)


def _check_no_log(files: Mapping[str, object], path: str) -> None:
    for name in files:
        for pattern, kind in _LOGS.items():
            if pattern.fullmatch(name):
                raise DatasetError(
                    f"{path} is {kind}: its files also hold deleted and replaced rows, and {name!r} says which "
                    "count. Read it by a query or as the table of an asset: write sql or asset, not path"
                )


def _pattern(path: str, tables: Collection[str]) -> str:
    """A pattern for some of the tables, as an example."""
    name = next(iter(tables), "a.csv").rsplit("/", 1)[-1]
    deeper = "**/" if any("/" in table for table in tables) else ""
    ending = "".join(f".{part}" for part in name.rsplit(".", 2)[1:])
    if not name.lower().endswith(tuple(COMPRESSIONS)):
        ending = ending[ending.rfind(".") :]
    return f"such as dataset.path: {path.rstrip('/')}/{deeper}*{ending}"
