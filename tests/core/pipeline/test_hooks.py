"""A pipeline's own functions: render_request changes or rejects requests, parse_message makes columns."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.answers.parsed_answers import ArrowColumns
from batch_assets.core.errors import ConfigError, ResultsError
from batch_assets.core.pipeline.hooks import RowRejected
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.write import write_results

from ..support import MODEL, World, params

COLUMNS = pa.schema(
    [
        pa.field("mood", pa.string(), nullable=False, metadata={"description": "What the writer feels."}),
        pa.field("score", pa.int64()),
    ]
)


def _params_of(world: World, pipeline: Pipeline) -> dict[str, Any]:
    """The params that were sent, by row key."""
    bodies = [orjson.loads(world.sent_body(batch["id"])) for batch in world.accepted()]
    sent = {entry["custom_id"]: entry["params"] for body in bodies for entry in body["requests"]}
    table = world.table(pipeline)
    return {key: sent.get(custom_id) for key, custom_id in zip(table["id"], table["custom_id"], strict=True)}


def _by_key(world: World, pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(world.path(pipeline.name, "results", "results.parquet")).to_pylist()
    return {row["id"]: row for row in rows}


def _picky(pipeline: Pipeline, row: dict[str, Any], params_: dict[str, Any]) -> dict[str, Any] | None:
    """A render_request that does something different for each row key."""
    match row["id"]:
        case "dear":
            params_["model"] = "claude-opus-5-5"
            params_["metadata"] = {"user_id": f"{pipeline.name}-{row['tier']}"}
        case "skipped":
            return None
        case "unwilling":
            raise RowRejected("the customer did not agree")
        case "crash":
            raise KeyError("a mistake")
        case "list":
            return [params_]  # type: ignore[return-value]
        case "set":
            params_["stop_sequences"] = {"a", "b"}
        case "broken":
            del params_["max_tokens"]
        case "unknown":
            params_["temprature"] = 1
        case "surrogate":
            params_["system"] = "\ud800"
        case "huge":
            params_["system"] = "x" * 2_000_000
    return params_


def test_a_hook_sees_the_whole_row_and_changes_or_rejects_its_request(world: World) -> None:
    keys = [
        "plain",
        "dear",
        "skipped",
        "unwilling",
        "crash",
        "list",
        "set",
        "broken",
        "unknown",
        "surrogate",
        "huge",
    ]
    lines = [orjson.dumps({"id": key, "text": f"the text of {key}", "tier": "gold"}) for key in keys]
    (world.folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    batching = {"max_mb": 1}
    dataset = {"path": "rows.jsonl", "key": "id", "columns": []}
    pipeline = world.pipeline(dataset=dataset, hooks=Hooks(render_request=_picky), batching=batching)
    assert pipeline.reads == {"text"}
    world.run(pipeline)
    sent = _params_of(world, pipeline)
    assert sent["plain"] == params("the text of plain")
    assert sent["dear"] == params("the text of dear", metadata={"user_id": "asked-gold"}) | {
        "model": "claude-opus-5-5"
    }
    rows = _by_key(world, pipeline)
    messages = {key: row["error_message"] for key, row in rows.items() if row["result_type"] == "rejected"}
    assert set(messages) == set(keys) - {"plain", "dear"}
    assert {rows[key]["error_type"] for key in messages if key != "huge"} == {"render_request"}
    assert rows["huge"]["error_type"] == "request_too_large"
    assert messages["skipped"] == "render_request returned None for this row"
    assert messages["unwilling"] == "the customer did not agree"
    assert messages["crash"] == "KeyError: 'a mistake'"
    assert messages["list"] == "render_request returned a list: return the params or None"
    assert messages["set"].startswith("what render_request returned has no JSON form: ")
    assert messages["broken"] == "params.max_tokens: this field is required by the Messages API"
    assert messages["unknown"].startswith("params.temprature: ")
    assert "surrogate" in messages["surrogate"]


def test_a_request_that_a_hook_does_not_change_keeps_its_digest(world: World) -> None:
    rows = {"a": "one 1.0", "b": "two \u2028 ü"}
    body = params("{{ text }}", metadata={"user_id": "{{ text }}"}, stop_sequences=["\n\nEnd"])
    plain = world.pipeline(rows, params=body)
    world.run(plain)
    with_hook = world.pipeline(rows, params=body, hooks=Hooks(render_request=lambda _, row, params_: params_))
    report = world.build(with_hook)
    assert (report.requests, report.reused, report.written) == (2, 2, 0)
    world.finish(with_hook)
    metadata = pq.read_schema(world.path("asked", "results", "results.parquet")).metadata
    world.build(plain)
    world.finish(plain)
    now = pq.read_schema(world.path("asked", "results", "results.parquet")).metadata
    assert now[b"batch_assets.template_digest"] != metadata[b"batch_assets.template_digest"]


def test_cost_estimates_use_the_requests_of_the_hook(world: World) -> None:
    def shorter(pipeline: Pipeline, row: dict[str, Any], params_: dict[str, Any]) -> dict[str, Any]:
        return params_ | {"max_tokens": 7}

    pipeline = world.pipeline({"a": "one"}, hooks=Hooks(render_request=shorter))
    plan = plan_requests(world.root, pipeline, "", AskAgain())
    assert plan.estimate is not None and plan.estimate.batch is not None
    of_seven, of_hundred = (
        default_prices().cost(MODEL, {"input_tokens": 0, "output_tokens": tokens}) for tokens in (7, 100)
    )
    assert of_seven is not None and of_hundred is not None
    assert of_seven.batch <= plan.estimate.batch.high - plan.estimate.batch.low < of_hundred.batch


def _from_tags(message: dict[str, Any]) -> dict[str, Any]:
    text = "".join(block["text"] for block in message["content"])
    values = dict(re.findall(r"<(mood|score|odd)>(.*?)</", text))
    if not values:
        raise ValueError("there are no tags in the answer")
    if "score" in values:
        values["score"] = int(values["score"]) if values["score"].isdigit() else values["score"]
    return values


TAGGED = {
    "fine": "<mood>good</mood><score>3</score>",
    "bare": "no tags at all",
    "typed": "<mood>bad</mood><score>many</score>",
    "lacking": "<score>1</score>",
    "more": "<mood>good</mood><odd>x</odd>",
}


def test_messages_become_the_columns_of_a_pyarrow_schema(world: World) -> None:
    pipeline = world.pipeline(TAGGED, hooks=Hooks(parse_message=_from_tags, output_columns=COLUMNS))
    world.run(pipeline)
    rows = _by_key(world, pipeline)
    schema = pq.read_schema(world.path("asked", "results", "results.parquet"))
    assert (schema.field("mood").type, schema.field("score").type) == (pa.string(), pa.int64())
    assert (rows["fine"]["mood"], rows["fine"]["score"], rows["fine"]["error_type"]) == ("good", 3, None)
    problems = {key: row["error_message"] for key, row in rows.items() if row["error_type"] == "invalid_output"}
    assert {row["result_type"] for row in rows.values()} == {"succeeded"}
    assert problems["bare"] == "parse_message: there are no tags in the answer"
    assert problems["typed"].startswith("parse_message: 'score' is not int64: ")
    assert problems["lacking"] == "parse_message: it returned no 'mood', which may not be null"
    assert problems["more"] == "parse_message: it returned 'odd', which is not one of the columns mood, score"
    assert all(rows[key]["mood"] is None and rows[key]["score"] is None for key in problems)
    assert pipeline.output is not None
    assert pipeline.output.descriptions == {"mood": "What the writer feels."}


def test_an_output_schema_declares_the_columns_and_is_not_sent(world: World) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}, "score": {"type": "integer"}},
        "required": ["mood"],
    }

    def parse(message: dict[str, Any]) -> dict[str, Any]:
        return _from_tags(message) | ({"mood": "so-so"} if "no tags" in str(message) else {})

    pipeline = world.pipeline(TAGGED, hooks=Hooks(parse_message=parse), output_schema=schema)
    world.run(pipeline)
    assert "output_config" not in _params_of(world, pipeline)["fine"]
    rows = _by_key(world, pipeline)
    assert (rows["fine"]["mood"], rows["fine"]["score"]) == ("good", 3)
    assert rows["typed"]["error_message"] == "parse_message: the property 'score' is 'many', not a whole number"
    assert rows["lacking"]["error_message"] == "parse_message: the answer lacks the property 'mood'"
    assert rows["more"]["error_type"] is None  # the schema allows more properties


def test_a_changed_parse_message_sends_no_requests(world: World) -> None:
    first = world.pipeline(TAGGED, hooks=Hooks(parse_message=_from_tags, output_columns=COLUMNS))
    world.run(first)
    sent = len(world.accepted())
    other = pa.schema([("shout", pa.string())])
    changed = world.pipeline(
        hooks=Hooks(parse_message=lambda message: {"shout": message["stop_reason"].upper()}, output_columns=other)
    )
    world.collect(changed)
    table = world.table(changed)
    assert set(table["shout"]) == {"END_TURN"}
    assert "mood" not in table.columns
    assert len(world.accepted()) == sent
    # Without parse_message, the table has the usual columns.
    world.collect(world.pipeline())
    assert "shout" not in world.table(changed).columns


def test_an_error_names_a_parsed_column_that_is_also_carried(world: World) -> None:
    world.run(world.pipeline({"a": "one"}))
    columns = pa.schema([("text", pa.string())])
    hooked = world.pipeline(hooks=Hooks(parse_message=lambda message: {}, output_columns=columns))
    with pytest.raises(ResultsError, match="column 'text', which was also carried from the dataset"):
        write_results(world.root, "asked", answers=hooked.own_answers)
    with pytest.raises(ConfigError, match="'text' have the same name"):
        world.build(hooked)


@pytest.mark.parametrize(
    ("hooks", "more", "problem"),
    [
        (Hooks(parse_message=_from_tags), {}, "parse_message: its columns are not declared"),
        (Hooks(output_columns=COLUMNS), {}, "output_columns: these are columns from parse_message"),
        (Hooks(None, _from_tags, COLUMNS), {"output_schema": {}}, "output_columns: output_schema declares"),
        (Hooks(None, _from_tags, pa.schema([])), {}, "output_columns: give a pyarrow schema with at least one"),
        (Hooks(None, _from_tags, pa.schema([("a", pa.int8())] * 2)), {}, "two columns have the same name"),
        (Hooks(None, _from_tags, pa.schema([("a", pa.struct([]))])), {}, "Parquet, which cannot hold"),
        (
            Hooks(None, _from_tags, pa.schema([("cost_usd", pa.int8())])),
            {},
            "output_columns: the property 'cost_usd'",
        ),
    ],
)
def test_contradictory_columns_are_refused_at_load(
    world: World, hooks: Hooks, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        world.pipeline({"a": "one"}, hooks=hooks, **more)


@pytest.mark.parametrize("hook", ["render_request", "parse_message"])
def test_a_hook_that_is_not_a_function_is_refused_at_load(world: World, hook: str) -> None:
    """Otherwise it would reject every row, and the run would succeed without sending any."""
    with pytest.raises(ConfigError, match=f"{hook}: give a function, not 5"):
        world.pipeline({"a": "one"}, hooks=Hooks(**{hook: 5}))  # type: ignore[arg-type]


def test_parsed_values_are_converted_to_arrow_types() -> None:
    columns = ArrowColumns(
        pa.schema(
            [
                ("day", pa.date32()),
                ("price", pa.decimal128(10, 2)),
                ("kind", pa.dictionary(pa.int32(), pa.string())),
                ("parts", pa.list_(pa.struct([("n", pa.int64())]))),
            ]
        )
    )
    good = {"day": date(2026, 1, 31), "price": Decimal("1.50"), "kind": "a", "parts": [{"n": 1}]}
    arrays, problems = columns.columns([good, None, {"price": "much"}, {"parts": [{"n": "x"}]}, {}])
    assert [array.to_pylist()[0] for array in arrays] == list(good.values())
    assert [problem is None for problem in problems] == [True, True, False, False, True]
    assert all(array.to_pylist()[1:] == [None] * 4 for array in arrays)
