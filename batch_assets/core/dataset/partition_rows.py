"""The rows of a partition: found through a path that contains the key, or through a column of the dataset."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from textwrap import shorten
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.errors import DatasetError
from batch_assets.core.pipeline.partitions import PLACEHOLDER, PartitionsConfig, Window, key_problem
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import NamePartition

_INSTANT = pa.timestamp("us", "UTC")
_MICROSECONDS = 1_000_000
_SHOWN, _SHOWN_CHARACTERS = 3, 60


def filled(path: str, key: str) -> str:
    """Return the path of a partition's file or folder.

    Args:
        path: The path in the pipeline file, with or without `{partition}`.
        key: The partition key; "" without one.

    Raises:
        DatasetError: When the key is missing, or the path would lead out of its folder.
    """
    if PLACEHOLDER not in path:
        return path
    if not key:
        raise DatasetError(f"{path} needs a partition", remedy=NamePartition())
    parts = re.split(r"[/\\]", key)
    if "::" in key or "\0" in key or not all(part.strip(".") for part in parts):
        raise DatasetError(f"the partition key {key!r} is not allowed in {path}: it would lead out of its folder")
    return path.replace(PLACEHOLDER, glob.escape(key))


@dataclass
class PartitionRows:
    """Selects the rows of a partition by the value of a column.

    Args:
        partitions: The `partitions` of the pipeline file.
        key: The partition key.
        type_: The type of the column.

    Attributes:
        without: The number of rows so far that belong to no partition at all. Their value is null, empty, not one
            of the `static` keys, or cannot be a key. For time partitions it is not a date, or is outside their
            start and end.
        examples: The first of these rows, with their values or why they could not be read, as texts.

    Raises:
        ValueError: When the column's type or the key does not fit the partitions.
    """

    partitions: PartitionsConfig
    key: str
    type_: pa.DataType
    without: int = 0
    examples: list[str] = field(default_factory=list)
    _window: Window = field(init=False)
    _static: frozenset[str] | None = field(init=False)

    def __post_init__(self) -> None:
        static = self.partitions.static
        self._static = frozenset(static) if static is not None else None
        if self.partitions.is_time:
            if not (_is_dated(self.type_) or _is_text(self.type_)):
                raise ValueError(
                    f"its type is {self.type_}, but time partitions need dates, timestamps or text like "
                    "2026-01-31T13:00:00"
                )
            self._window = self.partitions.window(self.key)
        else:
            check_has_text(self.type_)

    def begin(self) -> None:
        """Begin to read the dataset, perhaps once more."""
        self.without = 0
        self.examples.clear()

    def mask(self, column: pa.Array, first: int, rejects: Mapping[int, tuple[str, str]]) -> pa.Array:
        """Whether each row belongs to the partition: bool, shape (n,), without nulls.

        Args:
            column: The values that determine the partition, shape (n,).
            first: The number of the first row, from 0.
            rejects: The (error type, text) of rejected rows, by position.
        """
        if not self.partitions.is_time:
            texts = partition_texts(column)
            keys = {text for text in set(texts) if text and self._is_key(text)}
            self._note([at for at, text in enumerate(texts) if text not in keys], column, first, rejects)
            return pa.array([text == self.key for text in texts], pa.bool_())
        instants = _instants(column, self.partitions.timezone)
        times = self.partitions.times
        outside = pc.invert(_within(instants, times.since, times.until))
        self._note(pc.indices_nonzero(outside).to_pylist(), column, first, rejects)
        return _within(instants, self._window.start, self._window.end)

    def _note(
        self, outside: list[int], column: pa.Array, first: int, rejects: Mapping[int, tuple[str, str]]
    ) -> None:
        """Count rows that belong to no partition at all, and keep examples."""
        self.without += len(outside)
        for position in outside[: _SHOWN - len(self.examples)]:
            if position in rejects:
                self.examples.append(rejects[position][1])
            else:
                self.examples.append(f"row {first + position} (from 0): {_shown(column[position])}")

    def _is_key(self, text: str) -> bool:
        if self._static is not None:
            return text in self._static
        # The command line accepts any key of dynamic partitions, even one that Dagster rejects.
        return text == self.key or key_problem(text) is None


def _shown(value: pa.Scalar) -> str:
    return shorten(repr(str(value)), _SHOWN_CHARACTERS, placeholder="…") if value.is_valid else "null"


def check_has_text(type_: pa.DataType) -> None:
    """Check that the values of a column can be partition keys.

    Raises:
        ValueError: When the column holds bytes or nested values.
    """
    if pa.types.is_nested(type_) or _is_bytes(type_):
        raise ValueError(f"its type is {type_}; partitions need plain values")


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_dated(type_: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)
    )


def partition_texts(column: pa.Array) -> list[str | None]:
    """Return values as a prompt shows them.

    Args:
        column: Any type, shape (n,).
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = [None if value is None else str(value) for value in encoded.dictionary.to_pylist()]
    return [None if at is None else texts[at] for at in encoded.indices.to_pylist()]


def _instants(column: pa.Array, zone: str) -> pa.Array:
    """Microseconds since 1970 in UTC: int64, shape (n,), null for values that are not dates.

    Args:
        column: Dates, timestamps or text, shape (n,).
        zone: The time zone of the partitions, which applies to values without one.
    """
    if _is_text(column.type):
        instants = {text: _instant(text, ZoneInfo(zone)) for text in column.unique().to_pylist()}
        return pa.array([instants[text] for text in column.to_pylist()], pa.int64())
    if pa.types.is_date(column.type) or column.type.tz is None:
        local = column.cast(pa.timestamp("us"), safe=False)
        # A wall clock hour that occurs twice means the first of the two, as in Dagster's keys.
        column = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest")
    return column.cast(_INSTANT, safe=False).cast(pa.int64())


def _within(instants: pa.Array, first: datetime, end: datetime | None) -> pa.Array:
    """Whether each instant is at or after `first` and before `end`: bool, shape (n,), without nulls."""
    inside = pc.greater_equal(instants, _microseconds(first))
    if end is not None:
        inside = pc.and_(inside, pc.less(instants, _microseconds(end)))
    return pc.fill_null(inside, False)


def _instant(text: str | None, zone: ZoneInfo) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip() if text else "")
        return _microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=zone))
    except (ValueError, OverflowError):
        return None


def _microseconds(moment: datetime) -> int:
    delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * _MICROSECONDS + delta.microseconds


def rows_left_out(pipeline: Pipeline, count: int, examples: Sequence[str] = ()) -> str:
    """Return the warning about rows that belong to no partition.

    Args:
        pipeline: A pipeline whose partitions are defined by a column.
        count: The number of these rows.
        examples: The first of them, as texts.
    """
    partitions = pipeline.config.partitions
    assert partitions is not None
    reasons = "null, empty, or cannot be a key: it contains ... or a control character, or is too long"
    if partitions.static is not None:
        reasons = "null, empty, or not one of the keys in partitions.static"
    elif partitions.is_time:
        times = partitions.times
        outside = f"before {times.start}" + (f", or on or after {times.end}" if times.end else "")
        reasons = f"null, not a date, {'' if times.end else 'or '}{outside}"
    first = f". The first: {'; '.join(examples)}" if examples else ""
    return (
        f"Rows of the dataset that belong to no partition and are never sent: {count:,}. Their "
        f"{partitions.column!r} is {reasons}{first}"
    )
