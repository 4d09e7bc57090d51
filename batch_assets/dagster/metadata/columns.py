"""The columns of results as Dagster shows them: with descriptions, and even before the first run."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import pyarrow as pa

from batch_assets.core.answers.result_columns import ColumnGroups, fields_after
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.dagster.metadata.lineage import lineage_of

# As in docs/results.md; a test compares them.
DESCRIPTIONS = {
    "custom_id": (
        "The id that was sent: the first row key in characters the API accepts, the mark of the root, and the "
        "request's digest."
    ),
    "result_type": "`succeeded`, `errored`, `expired`, `canceled`, `rejected` (never sent) or `pending`.",
    "is_ok": (
        "Whether the row has an answer that is whole and valid: `succeeded`, and neither `invalid_output` nor "
        "refused, cut off or paused, nor with calls of tools with a function. Never null."
    ),
    "response_text": "The text blocks of the answer, joined.",
    "tool_calls": "Only if `params` has tools and none is forced: `id`, `name` and `input` (JSON) of every call.",
    "stop_reason": "`end_turn`, `max_tokens`, `refusal`, `tool_use`, … as the API returned it.",
    "response_model": "The model that answered.",
    "message_id": "The API's id of the message.",
    "input_tokens": "Tokens of the prompt that were not cached.",
    "output_tokens": "Tokens of the answer, including thinking.",
    "cache_creation_input_tokens": "Tokens written into the prompt cache.",
    "cache_read_input_tokens": "Tokens read from the prompt cache.",
    "thinking_tokens": "Of the output tokens, those of thinking; null if the API does not say.",
    "cost_usd": (
        "Cost at the batch prices in `prices.yaml`, or at live prices for an answer of a live call, with the fees "
        "of web searches; null for a model that is not listed there, and if the API does not say how many tokens "
        "there were."
    ),
    "shared_with": (
        "If several rows have the same request: the key of the first of them, and null on that row itself."
    ),
    "error_type": (
        "The API's error type; why a row was rejected, such as `unreadable_row` (`dataset.bad_rows`), "
        "`invalid_media` (an image or PDF that the API does not accept) or `erased` (`batch-assets erase`); "
        "`invalid_output` if the answer does not match the schema; `unreadable_result` if the API's line has "
        "no result, or a value that no column can hold, such as a negative number of tokens: `response_json` then "
        "has the line; "
        "`answer_lost` if the answer was stored and is lost: the row is `pending`; `live_call_lost` if the reply "
        "to a live call was lost and the batch brought no result either; `pruned` if it was removed "
        "(`batch-assets prune`): the row is `canceled`."
    ),
    "error_message": "What was wrong, as text.",
    "batch_id": (
        "The batch that the response came from; `live.…`, with the request file, if it came from live calls."
    ),
    "attempts": "How often the request was submitted, with follow-ups of its chain. A refresh starts from 1.",
    "ended_at": "When the batch of the response ended, or when the answers of its live calls were stored.",
    "response_json": "The raw message, with thinking, citations, server tools and everything else.",
}
_ALWAYS = dg.TableColumnConstraints(nullable=False)
_NEVER_NULL = frozenset(("result_type", "is_ok"))
_KEY = dg.TableColumnConstraints(nullable=False, unique=True)


def known_columns(pipeline: Pipeline) -> dg.TableSchema:
    """Return the columns of results as far as they are known without reading the dataset."""
    dataset = pipeline.config.dataset
    carried = dataset.columns or []
    columns = {name: column for column, name in carried.items()} if isinstance(carried, dict) else {}
    columns = {dataset.key_name: dataset.key_column, **(columns or {name: name for name in carried})}
    first = [(name, dataset.types.get(column, "from the dataset")) for name, column in columns.items()]
    other_fields = fields_after(columns, pipeline.answers.fields)
    groups = ColumnGroups.of([*(pa.field(name, pa.null()) for name in columns), *other_fields])
    known = [*first, *((field.name, _type_name(field.type)) for field in other_fields)]
    lineage = lineage_of(pipeline, [name for name, _ in known], are_all_known=bool(carried))
    return _table_schema(pipeline, groups, known, lineage)


def columns_of(pipeline: Pipeline, schema: pa.Schema) -> dg.TableSchema:
    """Return the columns of an existing results table.

    Args:
        pipeline: The pipeline.
        schema: The schema of the table. The first column is the row key.
    """
    types = [(field.name, _type_name(field.type)) for field in schema]
    return _table_schema(pipeline, ColumnGroups.of(schema), types, lineage_of(pipeline, schema.names))


def _type_name(type_: pa.DataType) -> str:
    """Return a type as Arrow prints it, except enums: `dictionary<values=string, …>` means nothing to users."""
    if pa.types.is_dictionary(type_):
        return f"enum of {type_.value_type}"
    if pa.types.is_list(type_):
        return f"list<{_type_name(type_.value_type)}>"
    if pa.types.is_struct(type_):
        return f"struct<{', '.join(f'{field.name}: {_type_name(field.type)}' for field in type_)}>"
    return str(type_)


def _table_schema(
    pipeline: Pipeline,
    groups: ColumnGroups,
    columns: list[tuple[str, str]],
    lineage: dg.TableColumnLineage | None,
) -> dg.TableSchema:
    """Return columns with their descriptions, which have the lineage, too: the open-source UI does not show it."""
    of_output = pipeline.output.descriptions if pipeline.output else {}
    described = {name: DESCRIPTIONS[name] for name in groups.ours if name in DESCRIPTIONS} | of_output
    constraints = {groups.key: _KEY, **dict.fromkeys(_NEVER_NULL.intersection(groups.ours), _ALWAYS)}
    sources = lineage.deps_by_column if lineage is not None else {}
    return dg.TableSchema(
        [
            dg.TableColumn(
                name, type_, _description(described.get(name), sources.get(name)), constraints.get(name)
            )
            for name, type_ in columns
        ]
    )


def _description(text: str | None, sources: Sequence[dg.TableColumnDep] | None) -> str | None:
    """Return the description of a column, with the columns of the upstream asset that it comes from."""
    if not sources:
        return text
    names = ", ".join(source.column_name for source in sources)
    origin = f"From {names} of {sources[0].asset_key.to_user_string()}."
    return f"{text} {origin}" if text else origin
