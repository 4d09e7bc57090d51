"""The stored results tables of a pipeline, as one Arrow table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from batch_assets.core.answers.result_columns import PARTITION
from batch_assets.core.errors import FinalError
from batch_assets.core.io.layout import results_parts
from batch_assets.core.io.parquet import open_parquet, reading_parquet
from batch_assets.core.io.storage import PARTITION_FOLDER, Storage
from batch_assets.core.reading.wanted import WantedColumns
from batch_assets.core.text import listed, nearest

# Columns of few different texts, which readers count and group by.
_DICTIONARIES = ("result_type", "stop_reason", "error_type", "batch_id")
_NAMED = 10


class NoResultsError(FinalError):
    """There is no such pipeline, partition or column, or no table yet. Names what there is."""


class StoredTables:
    """The tables of some partitions of a pipeline, or the table of one without partitions.

    Args:
        storage: The root.
        pipeline: The name of the pipeline.
        partitions: The keys of the partitions; `None` for all that have a table.

    Raises:
        NoResultsError: When there is no such pipeline or partition, or no table yet.
    """

    def __init__(self, storage: Storage, pipeline: str, partitions: Sequence[str] | None) -> None:
        self._storage, self._pipeline = storage, pipeline
        names = storage.names(pipeline, "results")
        present = [
            unquote(name.removeprefix(PARTITION_FOLDER)) for name in names if name.startswith(PARTITION_FOLDER)
        ]
        if not present and results_parts(pipeline, "")[-1] not in names:
            raise NoResultsError(self._why_none())
        self._is_partitioned = bool(present)
        self._is_named = partitions is not None
        self._keys = sorted(present) or [""]
        if partitions is not None:
            self._check(partitions, present)
            self._keys = sorted(set(partitions))

    def read(self, wanted: WantedColumns) -> pa.Table:
        """Read columns of all these tables, partition after partition in the order of their keys.

        A column that some of the tables lack, because they are of an earlier version or pipeline file, is null
        there.

        Args:
            wanted: The columns.

        Raises:
            NoResultsError: When no column is wanted, a column is in none of the tables, or two tables have it with
                different types.
            DamagedFileError: When a table is damaged.
        """
        if wanted.is_none:
            raise NoResultsError(
                f"no column of {self._pipeline} is named: leave `columns` out for its answers, or name some"
            )
        present: dict[str, None] = {}
        tables: dict[str, pa.Table] = {}
        for key, read in self._storage.each(lambda key: self._read_one(key, wanted), self._keys):
            if read is not None:
                tables[key], names = read
                present |= dict.fromkeys(names)
        if not tables:
            raise NoResultsError(self._why_none())
        if self._is_partitioned and wanted.has_partition:
            present[PARTITION] = None
        if missing := [name for name in wanted.named if name not in present]:
            unknown = f"the results of {self._pipeline} have no column {missing[0]!r}{_meant(missing[0], present)}"
            raise NoResultsError(f"{unknown}; their columns: {', '.join(present)}")
        table = self._joined(tables).unify_dictionaries().replace_schema_metadata(None)
        return table.select(list(dict.fromkeys(wanted.named))) if wanted.named else table

    def _read_one(self, key: str, wanted: WantedColumns) -> tuple[pa.Table, list[str]] | None:
        """Read a table, and the names of all its columns; `None` if the folder of a partition has none."""
        parts = results_parts(self._pipeline, key)
        uri = self._storage.uri(*parts)
        try:
            with (
                reading_parquet(uri, "The next run of the pipeline writes it again"),
                self._storage.open(*parts) as source,
                open_parquet(source, read_dictionary=list(_DICTIONARIES)) as file,
            ):
                columns = wanted.of(file.schema_arrow)
                names = list(dict.fromkeys([*file.schema_arrow.names, *columns.wanted]))
                table = columns.select(file.read(columns.stored))
        except FileNotFoundError:
            if self._is_named:
                raise NoResultsError(
                    f"{self._pipeline} has no table of the partition {key!r} yet: {uri}"
                ) from None
            return None
        except ValueError:
            raise NoResultsError(f"{uri} is no table of results") from None
        if self._is_partitioned and wanted.has_partition:
            codes = pa.array(np.zeros(len(table), np.int32))
            table = table.append_column(PARTITION, pa.DictionaryArray.from_arrays(codes, pa.array([key])))
        return table, names

    def _joined(self, tables: dict[str, pa.Table]) -> pa.Table:
        try:
            return pa.concat_tables(tables.values(), promote_options="permissive")
        except pa.ArrowException:
            types: dict[str, dict[pa.DataType, str]] = {}
            for key, table in tables.items():
                for field in table.schema:
                    types.setdefault(field.name, {}).setdefault(field.type, key)
            name, differ = max(types.items(), key=lambda entry: len(entry[1]))
            of_each = "; ".join(f"{type_} in the partition {key!r}" for type_, key in differ.items())
            raise NoResultsError(
                f"the column {name!r} of {self._pipeline} has different types: {of_each}. Read these partitions "
                "one by one, leave the column out, or run the pipeline for the older ones again"
            ) from None

    def _check(self, partitions: Sequence[str], present: Collection[str]) -> None:
        if not self._is_partitioned:
            raise NoResultsError(f"{self._pipeline} has no partitions: leave `partitions` out")
        if not partitions:
            raise NoResultsError(
                f"no partition of {self._pipeline} is named: leave `partitions` out for all of them"
            )
        for key in partitions:
            if key not in present:
                unknown = f"{self._pipeline} has no results of the partition {key!r}{_meant(key, present)}"
                raise NoResultsError(f"{unknown}; its partitions: {listed(sorted(present), _NAMED)}")

    def _why_none(self) -> str:
        """Return why there is no table, for users."""
        root, names = self._storage.uri(), self._storage.names()
        if self._pipeline in names and self._storage.names(self._pipeline):
            first = "its first table is written when the first batch has ended"
            return f"{self._pipeline} has no results under {root} yet: {first}"
        others = [name for name in names if self._storage.names(name, "results")]
        there = f"; it has results of {listed(others, _NAMED)}" if others else ", nor of another pipeline"
        unknown = f"there are no results of {self._pipeline!r} under {root}{_meant(self._pipeline, others)}{there}"
        return f"{unknown}. To read those of another root, give `root`"


def _meant(name: str, names: Collection[str]) -> str:
    meant = nearest(name, names)
    return f" (did you mean {meant!r}?)" if meant is not None else ""
