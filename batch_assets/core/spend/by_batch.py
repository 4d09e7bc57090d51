"""What each batch cost, kept in a file so that a run reads only the response files that are new.

The file is a cache: without it, everything is read again. It is also a table for users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import SPEND_BATCHES
from batch_assets.core.io.parquet import COMPRESSION, reading_parquet
from batch_assets.core.io.storage import Storage
from batch_assets.core.spend.amounts import AMOUNTS, COUNTED, Amounts

MONEY = pa.decimal128(38, 12)
"""The type of amounts in USD: whole picodollars."""
KNOWN, UNKNOWN = "known", "unknown"
"""The kinds of rows: what answers that are stored cost, and requests that may have to be paid without one."""
COMPARED = "compared"
"""What answers have as their duplicates that were compared with others, if all are just in force."""
_TEXTS = ("pipeline", "batch_id", "model", "kind")
_STATE, _RELATED = ("version", "duplicates"), "is_related"
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("day", pa.date32()),
        *((name, pa.int64()) for name in COUNTED),
        *((name, MONEY) for name in AMOUNTS),
        ("high_usd", MONEY),
        *((name, pa.string()) for name in _STATE),
        (_RELATED, pa.bool_()),
    ]
)


@dataclass
class BatchRow:
    """What a batch cost, by the model that answered; or what is unknown about it.

    Attributes:
        pipeline: The pipeline.
        batch_id: The id of the batch, or of an intent that may have created one.
        model: The model; "" for requests without an answer.
        kind: KNOWN or UNKNOWN.
        day: The UTC day on which the batch ended; `None` if it is not known.
        amounts: COUNTED and AMOUNTS; amounts in picodollars.
        high: The most that it can have cost, in picodollars; `None` if there is no bound.
        version: The version of the response file. Without one: identifies the prices and the request file that
            give no bound, if `high` is `None`.
        duplicates: Identifies which of its answers are not in force, or were followed by others; COMPARED if none
            are, "" if they were not compared with others.
        is_related: Whether other response files may have answers to its requests, as far as the file shows: some
            of its answers were pruned, or are answers to follow-ups.
    """

    pipeline: str
    batch_id: str
    model: str
    kind: str
    day: date | None
    amounts: Amounts = field(default_factory=Counter)
    high: int | None = 0
    version: str = ""
    duplicates: str = ""
    is_related: bool = False

    def is_compared(self, version: str) -> bool:
        """Whether the answers of its response file, in this version, were compared with others."""
        return self.version == version and bool(self.duplicates)


def sum_of_bounds(one: int | None, other: int | None) -> int | None:
    """Add the most that two things can cost; `None` if there is no bound for one of them."""
    return None if one is None or other is None else one + other


def day_of(seconds: float) -> date | None:
    """Return the UTC day of a time in seconds since 1970; `None` for 0.0."""
    return datetime.fromtimestamp(seconds, UTC).date() if seconds else None


def read_kept(storage: Storage) -> dict[tuple[str, str], list[BatchRow]]:
    """Read the rows of the last run by pipeline and batch id; none without a file of this version."""
    columns = read_columns(storage, SPEND_BATCHES, _SCHEMA)
    kept: dict[tuple[str, str], list[BatchRow]] = {}
    for at in range(len(columns["kind"])):
        row = BatchRow(
            day=columns["day"][at],
            amounts=Counter({name: columns[name][at] for name in (*COUNTED, *AMOUNTS) if columns[name][at]}),
            high=columns["high_usd"][at],
            **{name: columns[name][at] for name in (*_TEXTS, *_STATE, _RELATED)},
        )
        kept.setdefault((row.pipeline, row.batch_id), []).append(row)
    return kept


def write_kept(storage: Storage, rows: list[BatchRow]) -> None:
    """Write the rows, in the place of those of the last run."""
    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in rows] for name in (*_TEXTS, "day", *_STATE, _RELATED)
    }
    columns |= {name: [row.amounts[name] for row in rows] for name in COUNTED}
    columns |= {name: money_column([row.amounts[name] for row in rows]) for name in AMOUNTS}
    columns["high_usd"] = money_column([row.high for row in rows])
    write_columns(storage, SPEND_BATCHES, _SCHEMA, columns)


def read_columns(storage: Storage, parts: tuple[str, ...], schema: pa.Schema) -> dict[str, list[Any]]:
    """Read the columns of a file that is only kept to save work; empty columns without a file of this schema."""
    table = schema.empty_table()
    if storage.is_file(*parts):
        try:
            with reading_parquet(storage.uri(*parts), "Remove it"), storage.open(*parts) as source:
                table = pq.read_table(source, use_threads=False)
        except (DamagedFileError, FileNotFoundError):
            pass
    if table.schema.remove_metadata() != schema:
        table = schema.empty_table()
    return {name: _values(table[name]) for name in table.column_names}


def write_columns(storage: Storage, parts: tuple[str, ...], schema: pa.Schema, columns: Mapping[str, Any]) -> None:
    """Write the columns of a schema as a table, in the place of the last one."""
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    with storage.write(*parts) as scratch:
        pq.write_table(table, scratch, **COMPRESSION)


def money_column(amounts: Sequence[int | None]) -> pa.Array:
    """Return amounts in picodollars as decimals in USD."""
    whole = pa.array(amounts, pa.decimal128(38, 0))
    return pa.Array.from_buffers(MONEY, len(whole), whole.buffers())


def _values(column: pa.ChunkedArray) -> list[Any]:
    if column.type != MONEY:
        values: list[Any] = column.to_pylist()
        return values
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], MONEY)
    whole = pa.Array.from_buffers(pa.decimal128(38, 0), len(array), array.buffers(), offset=array.offset)
    return [None if amount is None else int(amount) for amount in whole.to_pylist()]
