"""The columns of results: their names and types, and which other columns clash with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")

# The columns that follow the row key and the carried columns. The typed columns of the output schema come between
# these two groups, after response_text.
BEFORE_OUTPUT = [
    pa.field("custom_id", pa.string()),
    pa.field("result_type", pa.string()),
    pa.field("is_ok", pa.bool_()),
    pa.field("response_text", pa.string()),
]
AFTER_OUTPUT = [
    pa.field("stop_reason", pa.string()),
    pa.field("response_model", pa.string()),
    pa.field("message_id", pa.string()),
    pa.field("input_tokens", pa.int64()),
    pa.field("output_tokens", pa.int64()),
    pa.field("cache_creation_input_tokens", pa.int64()),
    pa.field("cache_read_input_tokens", pa.int64()),
    pa.field("thinking_tokens", pa.int64()),
    pa.field("cost_usd", pa.float64()),
    pa.field("shared_with", pa.string()),
    pa.field("error_type", pa.string()),
    pa.field("error_message", pa.string()),
    pa.field("batch_id", pa.string()),
    pa.field("attempts", pa.int32()),
    pa.field("ended_at", TIMESTAMP),
    pa.field("response_json", pa.string()),
]
# Follows the typed columns if the params have tools and none of them is forced: the tool calls of a response, null
# if it has none. `input` is JSON.
TOOL_CALLS = pa.field(
    "tool_calls", pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("input", pa.string())]))
)
# Readers of a partitioned folder get this column from the folder names, so the tables cannot have their own column
# of this name. It is reserved for every pipeline, because partitions are not known when a pipeline is loaded.
PARTITION = "partition"
RESULT_NAMES = [field.name for field in (*BEFORE_OUTPUT, *AFTER_OUTPUT)]
SINCE: Mapping[str, int] = {"thinking_tokens": 2, "is_ok": 3}
"""The version of the table in which a column was added; those of the first version are not here.

A pipeline may have had a column of its own with such a name. It stays, and the results of this pipeline lack ours.
"""
VERSION = max(SINCE.values())
"""The version of the table. One of an earlier version is written again, although its rows are as they were."""
# If rows share a request, only the first row has values in these columns, so that sums over the table are right.
COUNTED_ONCE = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "thinking_tokens",
    "cost_usd",
)


@dataclass(frozen=True)
class ColumnGroups:
    """The names of a table's columns by where they come from, in order.

    Attributes:
        key: The row key.
        carried: The carried columns.
        typed: The typed columns, without the tool calls.
        ours: The other columns, which most tables have.
    """

    key: str
    carried: list[str]
    typed: list[str]
    ours: list[str]

    @classmethod
    def of(cls, fields: Iterable[pa.Field]) -> Self:
        """Tell the columns of a table of any version by their order.

        No column of a pipeline can have the name of one of the first version, so these tell where the groups end.

        Args:
            fields: The columns of the table in order.

        Raises:
            ValueError: When the table is not one of results.
        """
        type_of = {field.name: field.type for field in fields}
        names = list(type_of)
        before, start, end = (names.index(name) for name in ("custom_id", "response_text", "stop_reason"))
        typed = [
            name for name in names[start + 1 : end] if (name, type_of[name]) != (TOOL_CALLS.name, TOOL_CALLS.type)
        ]
        return cls(names[0], names[1:before], typed, [name for name in names[before:] if name not in typed])


def fields_after(carried: Collection[str], typed: Sequence[pa.Field]) -> list[pa.Field]:
    """Return the columns that follow the row key and the carried columns.

    Args:
        carried: The names of the row key and the carried columns.
        typed: The columns that depend on the pipeline: those of the output schema, and the tool calls.
    """
    lacking = given_way({*carried, *(field.name for field in typed)})
    before, after = (
        [field for field in part if field.name not in lacking] for part in (BEFORE_OUTPUT, AFTER_OUTPUT)
    )
    return [*before, *typed, *after]


def given_way(own_names: Collection[str]) -> set[str]:
    """Return the columns that a table lacks because the pipeline has one of its own with the name.

    Databases and DuckDB take names for equal that differ in case only.

    Args:
        own_names: The pipeline's own columns: row key, carried and typed ones.
    """
    taken = {name.casefold() for name in own_names}
    return {name for name in SINCE if name in taken}


def ways_to_have_both(
    key: str, key_column: str, carried: Mapping[str, str], typed: Collection[str]
) -> Iterator[str]:
    """Yield a text for each column that gives way to one of the pipeline, with what to write to have both.

    Args:
        key: The row key in results.
        key_column: The row key in the dataset.
        carried: See `name_clash`.
        typed: The properties of the output schema.
    """
    for name in sorted(given_way({key, *carried.values(), *typed})):
        columns = [column for column, as_ in carried.items() if as_.casefold() == name and as_ != key]
        if key.casefold() == name:
            remedy = f"write `dataset.key` as a map, `key: {{{key_column}: dataset_{name}}}`"
        elif columns:
            remedy = f"write `dataset.columns` as a map with the line `{columns[0]}: dataset_{name}`"
        else:
            remedy = "rename the property"
        own = f"the pipeline has a column {name!r} of its own"
        yield f"{own}, so its results lack the one that other results have. To have both, {remedy}"


def name_clash(
    key: str,
    key_column: str,
    carried: dict[str, str],
    typed: list[str],
    *,
    typed_by: str = "output_schema",
    tool_calls: bool = False,
) -> tuple[str, str] | None:
    """Look for two columns of results with the same name.

    Args:
        key: The row key in results.
        key_column: The row key in the dataset.
        carried: The carried columns, from the name in the dataset to the name in results. It may include the row
            key.
        typed: The properties of the output schema.
        typed_by: The field of the pipeline file that holds that schema.
        tool_calls: Whether the table has the column TOOL_CALLS.

    Returns:
        The field of the pipeline file, and a text that names what clashes and says how to fix it; `None` if all
        names differ.
    """
    first_names = [name for name in RESULT_NAMES if name not in SINCE]
    fixed_names = [*first_names, PARTITION, *([TOOL_CALLS.name] if tool_calls else [])]
    for name in typed:
        if name in fixed_names or name == key:
            return typed_by, f"the property {name!r} has the name of a results column: rename it"
    kind_of = {**dict.fromkeys(fixed_names, "results column"), **dict.fromkeys(typed, "output schema's property")}
    if key in kind_of:
        return "dataset.key", (
            f"the row key {key!r} and the {kind_of[key]} {key!r} have the same name: "
            f"write it as a map, `key: {{{key_column}: dataset_{key}}}`"
        )
    kind_of[key] = "row key"
    for column, name in carried.items():
        if column == key_column and name == key:
            continue
        if name in kind_of:
            return "dataset.columns", (
                f"the carried column {column!r} and the {kind_of[name]} {name!r} have the same name: "
                f"write columns as a map with the line `{column}: dataset_{column}`"
            )
        kind_of[name] = f"carried column {column!r} as"
    return None
