"""`read_results`: the answers of a pipeline as a table of pandas, polars, Arrow or DuckDB."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from batch_assets.core.emulated_root import only_root
from batch_assets.core.errors import SettingsError
from batch_assets.core.io.storage import Storage
from batch_assets.core.reading.frames import converter
from batch_assets.core.reading.tables import StoredTables
from batch_assets.core.reading.wanted import WantedColumns
from batch_assets.core.settings import Overrides, Settings


def read_results(
    name: str,
    partitions: str | Sequence[str] | None = None,
    *,
    columns: Literal["lean", "all"] | Sequence[str] = "lean",
    as_: Literal["pandas", "polars", "arrow", "duckdb"] = "pandas",
    root: str | Path | None = None,
) -> Any:
    """Read the results of a pipeline: one row for each row of the dataset, in its order.

    It needs neither Dagster nor the pipeline file, the ledger or a key. Of the files, only the columns that are
    asked for are read. A pipeline with partitions has one more column, `partition`, and its partitions follow each
    other in the order of their keys.

    `is_ok` says which rows have an answer that can be used: `table[table["is_ok"]]`.

    Sums of tokens and of `cost_usd` are right within a partition. Partitions with equal rows have the same answer,
    and each counts it: drop duplicates of `batch_id` and `custom_id` before adding up over several.

    Args:
        name: The name of the pipeline.
        partitions: The key of a partition, or several; `None` for all that have a table.
        columns: `lean` for the row key, the carried columns, `is_ok` and the answer: the typed columns, or
            `response_text` in a pipeline without any, and `tool_calls` if there are. `all` for every column, or
            the names of some.
        as_: `pandas` or `polars` for a DataFrame, `arrow` for a pyarrow.Table, `duckdb` for a relation. In pandas,
            integers are `Int64` and booleans `boolean`: beside nulls they stay what they are.
        root: The root, a folder or a URL. By default that of BATCH_ASSETS_ROOT, or the one that the commands of
            this project use. A relative path starts at the current folder.

    Returns:
        The table. `result_type`, `stop_reason`, `error_type`, `batch_id` and `partition` are dictionaries of texts
        in Arrow: categories in pandas and polars.

    Raises:
        NoResultsError: When there is no such pipeline, partition or column, no table yet, or no column is named.
            Names what there is.
        SettingsError: When an argument is not of its kind, the root cannot be used, the package for `as_` is not
            installed, or DuckDB does not tell two of the columns apart, because their names differ in case only.
        DamagedFileError: When a table is damaged.
    """
    _check_kinds(name, partitions, columns, as_, root)
    convert = converter(as_)
    with_root = Overrides(root=_absolute(root)) if root is not None else Overrides()
    settings = Settings.from_env(overrides=with_root, needs_ledger=False)
    if root is None:
        settings = only_root(settings, looks_only=True)
    tables = StoredTables(Storage.of(settings), name, [partitions] if isinstance(partitions, str) else partitions)
    return convert(tables.read(WantedColumns(columns)))


def _check_kinds(name: object, partitions: object, columns: object, as_: object, root: object) -> None:
    """Refuse arguments that are not of their kind: notebooks have no type checker.

    Raises:
        SettingsError: Names the argument.
    """
    for argument, value, is_right, remedy in (
        ("name", name, isinstance(name, str), "the name of a pipeline, as text"),
        ("partitions", partitions, partitions is None or _are_texts(partitions), "a key, or a list of keys"),
        ("columns", columns, _are_texts(columns), "'lean', 'all', or a list of names"),
        ("as_", as_, isinstance(as_, str), "'pandas', 'polars', 'arrow' or 'duckdb'"),
        ("root", root, root is None or isinstance(root, (str, Path)), "a folder or a URL, as text or a Path"),
    ):
        if not is_right:
            raise SettingsError(f"{argument} is {value!r}: give {remedy}")


def _are_texts(value: object) -> bool:
    """Whether a value is a text or a collection of texts."""
    return isinstance(value, Collection) and all(isinstance(text, str) for text in value)


def _absolute(root: str | Path) -> str:
    return root if isinstance(root, str) and "://" in root else str(Path(root).expanduser().absolute())
