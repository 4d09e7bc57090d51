"""The columns of results: their names, their types, and who may not take them."""

from __future__ import annotations

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")

# The columns that follow the row key and the carried columns, typed ones of the output schema excepted:
# those stand behind response_text.
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
    pa.field("cost_usd", pa.float64()),
    pa.field("shared_with", pa.string()),
    pa.field("error_type", pa.string()),
    pa.field("error_message", pa.string()),
    pa.field("batch_id", pa.string()),
    pa.field("attempts", pa.int32()),
    pa.field("ended_at", TIMESTAMP),
    pa.field("response_json", pa.string()),
]
# Behind the typed columns, where the params have tools and none of them is forced: the tools that a response
# called, null where it called none. `input` is JSON.
TOOL_CALLS = pa.field(
    "tool_calls", pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("input", pa.string())]))
)
# Who reads a folder of partitions gets this column from the folders' names: a column of the tables with this name
# cannot be merged with it. Whether there will be partitions is not known when a pipeline is loaded.
PARTITION = "partition"
RESULT_NAMES = [field.name for field in (*BEFORE_OUTPUT, *AFTER_OUTPUT)]
# Of rows that share a request, these stand on the first one only, so that sums over the table are right.
COUNTED_ONCE = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cost_usd",
)


def name_clash(
    key: str,
    carried: dict[str, str],
    typed: list[str],
    *,
    typed_by: str = "output_schema",
    tool_calls: bool = False,
) -> tuple[str, str] | None:
    """Looks for two columns of results with one name.

    Args:
        key: the row key.
        carried: dataset column to its name in results, the row key left out or in.
        typed: properties of the output schema.
        typed_by: the field of the pipeline file that holds that schema.
        tool_calls: whether the table has the column TOOL_CALLS.

    Returns:
        (field of the pipeline file, what clashes and the line of YAML that mends it), None when all is well.
    """
    own = [*RESULT_NAMES, PARTITION, *([TOOL_CALLS.name] if tool_calls else [])]
    for name in typed:
        if name in own or name == key:
            return typed_by, f"the property {name!r} has the name of a results column: rename it"
    taken = {**dict.fromkeys(own, "results column"), **dict.fromkeys(typed, "output schema's property")}
    if key in taken:
        return "dataset.key", f"the row key {key!r} and the {taken[key]} {key!r} have the same name"
    taken[key] = "row key"
    for column, name in carried.items():
        if column == key and name == key:
            continue
        if name in taken:
            return "dataset.columns", (
                f"the carried column {column!r} and the {taken[name]} {name!r} have the same name: "
                f"write columns as a map with the line `{column}: dataset_{column}`"
            )
        taken[name] = f"carried column {column!r} as"
    return None
