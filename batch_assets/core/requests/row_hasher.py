"""Hash what each row's request is rendered from, so that a row that would render the same is recognized.

A hash covers the values that templates read, with their kinds, and the context: everything that requests depend on
apart from the row. Two rows with equal hashes have equal requests. A row whose values allow no certain statement
has no hash and is rendered each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from hashlib import blake2b
from importlib.metadata import version
from itertools import chain
from types import NoneType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.dataset.shown_values import PlainDecimal
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.exact_json import exact_json
from batch_assets.core.requests.header_sets import HeaderSets
from batch_assets.core.requests.unchanged import ELSEWHERE
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, digests_of, pack
from batch_assets.core.store.row_hashes import CONTEXT_BYTES
from batch_assets.core.template.rendering import CURRENT
from batch_assets.core.template.row_templates import RowTemplates

# What turns values into text and JSON. Another version may write them otherwise.
_RENDERED_BY = ("batch-assets", "jinja2", "markupsafe", "numpy", "orjson", "pandas", "pyarrow", "pyyaml")
# The values of a row do not depend on where they come from, and its request not on what becomes of it.
_APART_FROM_ROWS = {**ELSEWHERE, **dict.fromkeys(("dataset", "partitions", "retry", "sink"), True)}
# Rows are made Python values in groups, because values may be long.
_ROWS_AT_ONCE = 256
_UTC_KEYS = ("UTC", "Etc/UTC")
_TEXT, _WHOLE_NUMBER, _NULL = b"s", b"i", b"n"


def row_context(
    pipeline: Pipeline, dataset: Dataset, templates: RowTemplates, headers: HeaderSets
) -> bytes | None:
    """Return a digest of everything that requests depend on apart from the row.

    Args:
        pipeline: The pipeline.
        dataset: The dataset, of which only the names of columns and the keys of objects count.
        templates: The templates, compiled for the dataset.
        headers: The header sets of the requests, before any row was rendered.

    Returns:
        `None` if it cannot be known: the pipeline's own code changes requests, the headers depend on the rows
        before, or templates read files that are known only when a row is rendered, or convert times to a zone by
        its name.
    """
    has_own_code = pipeline.hooks.render_request is not None
    if has_own_code or headers.by_row or templates.picks_files or templates.names_zones:
        return None
    inputs = [
        [*map(version, _RENDERED_BY), sys.version],
        CURRENT,
        pipeline.config.model_dump(exclude=_APART_FROM_ROWS),
        pipeline.prompt_digest,
        pipeline.sent_schema,
        sorted(templates.files.items()),
        templates.reads_row,
        sorted(templates.reads),
        dataset.schema.names if templates.reads_all_columns else None,
        # An object of any column counts, read or not: it decides whether a key is absent or a mistake.
        sorted(map(sorted, filter(templates.may_look_up, dataset.shapes))),
        headers.sets,
    ]
    return blake2b(exact_json(inputs), digest_size=CONTEXT_BYTES).digest()


class RowHasher:
    """Hashes the rows of a dataset.

    Args:
        context: See `row_context`.
        templates: The templates that rows are rendered with.
    """

    def __init__(self, context: bytes, templates: RowTemplates) -> None:
        self._primed = blake2b(context, digest_size=DIGEST_BYTES)
        self._reads, self._reads_all = sorted(templates.reads), templates.reads_all_columns

    def hashes(self, rows: Rows) -> tuple[Digests, NDArray[np.bool_]]:
        """Hash rows. Adds rows with a value that Python cannot represent to their rejects, as rendering does.

        Args:
            rows: The rows.

        Returns:
            The hash of each row (S16, shape (n,)), and whether it has one (bool, shape (n,)).
        """
        columns = [_tagged_column(rows, name) for name in self._reads]
        if self._reads_all:
            columns.append(_present(rows))
        has_hash = np.ones(len(rows.table), bool)
        for column in columns:
            if column.null_count:
                has_hash &= column.is_valid().to_numpy(zero_copy_only=False)
        if rows.rejects:
            has_hash[list(rows.rejects)] = False
        contents = _joined(columns, len(rows.table))
        starts = range(0, len(contents), _ROWS_AT_ONCE)
        pieces = (contents.slice(start, _ROWS_AT_ONCE).to_pylist() for start in starts)
        return pack(digests_of(self._primed, chain.from_iterable(pieces))), has_hash


def _joined(columns: Sequence[pa.Array], count: int) -> pa.Array:
    """Join the values of each row, preceded by their lengths, so that no two rows are joined to the same bytes.

    Args:
        columns: Large binary columns of length n. Null becomes an empty value.
        count: n.

    Returns:
        A large binary array of length n.
    """
    columns = [column.fill_null(b"") for column in columns]
    if not columns:
        return pa.array([b""] * count, pa.large_binary())
    lengths = np.empty((count, len(columns)), "<i8")
    for number, column in enumerate(columns):
        lengths[:, number] = pc.binary_length(column).to_numpy(zero_copy_only=False)
    buffers = [None, pa.py_buffer(lengths.tobytes())]
    heads = pa.Array.from_buffers(pa.binary(8 * len(columns)), count, buffers).cast(pa.large_binary())
    return pc.binary_join_element_wise(heads, *columns, pa.scalar(b"", pa.large_binary()))


def _present(rows: Rows) -> pa.Array:
    """Return the columns that each row has, in its own order, as bytes: large binary, length n."""
    if rows.present is None:  # all of them; no list of names is empty text
        return pa.array([b""] * len(rows.table), pa.large_binary())
    return pa.array([ascii([*names]).encode() for names in rows.present], pa.large_binary())


def _tagged_column(rows: Rows, name: str) -> pa.Array:
    """Return the values that templates read in a column, each as bytes that tell its kind: large binary, length n.

    Null where this is not certain. Text and whole numbers that templates see as Arrow has them are not made Python
    values.
    """
    type_ = rows.table.schema.field(name).type
    if name not in rows.own:
        column = rows.table.column(name)
        if pa.types.is_string(type_) or pa.types.is_large_string(type_):
            return _with_tag(_TEXT, column.cast(pa.large_binary()))
        if pa.types.is_integer(type_):
            return _with_tag(_WHOLE_NUMBER, column.cast(pa.large_string()).cast(pa.large_binary()))
    values = rows.own[name] = rows.values(name)  # rendering need not convert them again
    return pa.array([_tagged(value) for value in values], pa.large_binary())


def _with_tag(tag: bytes, column: pa.Array) -> pa.Array:
    empty = pa.scalar(b"", pa.large_binary())
    tagged = pc.binary_join_element_wise(pa.scalar(tag, pa.large_binary()), column, empty)
    return tagged.fill_null(_NULL)


def _tagged(value: Any) -> bytes | None:
    """Return the bytes of a value, after a tag that tells its kind; `None` if they may not tell all of it."""
    kind = type(value)
    tagged = _TAGGED.get(kind)
    if tagged is None and kind.__module__.partition(".")[0] == "pandas":
        tagged = _TAGGED_OF_PANDAS.get(kind.__name__)
    try:
        return tagged(value) if tagged is not None else None
    except (ValueError, RecursionError):  # a number with too many digits, or too many lists in lists
        return None


def _shown(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: tag + ascii(value).encode()


def _text(value: str) -> bytes:
    return _TEXT + value.encode("utf-8", "surrogatepass")


def _is_certain(zone: tzinfo | None) -> bool:
    """Whether the text of times does not depend on the rules of their zone."""
    return zone is None or zone is UTC or (type(zone) is ZoneInfo and zone.key in _UTC_KEYS)


def _moment(value: datetime) -> bytes | None:
    return b"T" + ascii(value).encode() if _is_certain(value.tzinfo) else None


def _timestamp(value: Any) -> bytes | None:
    """A time of pandas. Arrow makes one of a time in nanoseconds."""
    if not _is_certain(value.tzinfo):
        return None
    return b"P" + ascii([int(value.asm8.view("i8")), value.unit, value.tzinfo]).encode()


def _timedelta(value: Any) -> bytes:
    """A duration of pandas. Arrow makes one of a duration in nanoseconds."""
    return b"L" + ascii([int(value.asm8.view("i8")), value.unit]).encode()


def _json(value: Any) -> bytes | None:
    return b"j" + ascii(value).encode() if _is_json(value) else None


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is list:
        return all(map(_is_json, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_json, value.values()))
    return kind in (str, int, float, bool, NoneType)


_TAGGED: dict[type, Callable[[Any], bytes | None]] = {
    str: _text,
    NoneType: lambda _: _NULL,
    bool: _shown(b"b"),
    int: lambda value: _WHOLE_NUMBER + b"%d" % value,
    float: _shown(b"f"),
    bytes: lambda value: b"B" + value,
    Decimal: _shown(b"m"),
    PlainDecimal: _shown(b"p"),
    date: _shown(b"d"),
    time: lambda value: _shown(b"t")(value) if value.tzinfo is None else None,
    timedelta: _shown(b"l"),
    datetime: _moment,
    list: _json,
    dict: _json,
}
# By name: pandas takes long to import, and few datasets need it.
_TAGGED_OF_PANDAS: dict[str, Callable[[Any], bytes | None]] = {"Timestamp": _timestamp, "Timedelta": _timedelta}
