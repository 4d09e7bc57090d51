"""The columns of results: their names and types, and which other columns clash with them."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")

# The columns that follow the row key and the carried columns. The typed columns of the output schema come between
# these two groups, after response_text.
BEFORE_OUTPUT = [
    pa.field("custom_id", pa.string()),
    pa.field("result_type", pa.string()),
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
# Columns that were added later. A pipeline may have had a column of its own with such a name: it
# stays, and the results of this pipeline lack ours.
GIVE_WAY = {"thinking_tokens"}
# If rows share a request, only the first row has values in these columns, so that sums over the table are right.
COUNTED_ONCE = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "thinking_tokens",
    "cost_usd",
)


def after_output(own_names: Collection[str]) -> list[pa.Field]:
    """Return the columns that follow those of the output schema.

    Args:
        own_names: The pipeline's own columns: row key, carried and typed ones. A newer column gives way to them.
    """
    return [field for field in AFTER_OUTPUT if field.name not in GIVE_WAY or field.name not in own_names]


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
    result_names = [name for name in RESULT_NAMES if name not in GIVE_WAY]
    fixed_names = [*result_names, PARTITION, *([TOOL_CALLS.name] if tool_calls else [])]
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
