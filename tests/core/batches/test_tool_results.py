"""Calls of tools that have a function are followed by requests with their results, under the same row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.stored_lines import LostTexts
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.batches.tool_results import ToolResults
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import ConfigError
from batch_assets.core.io.layout import SPEND
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.hooks import ToolCall, ToolFailed, ToolFunction
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.examine import examine
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import build_spend
from batch_assets.core.spend.spend_table import PAID_IN_VAIN
from tests.forked import ForkServer

from ..erase.support import every_text
from ..lost_ledger import lose_ledger
from ..support import World, make_pipeline, params, texts
from .test_follow_ups import SCHEMA, kill_anywhere, nothing_more, responses, scripted, sent

LOOK_UP = {
    "name": "look_up",
    "input_schema": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
}
NOTE = {"name": "note", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}


def calling(world: World, rows: dict[str, str], *tools: dict[str, Any], paused: int = 3, **more: Any) -> Pipeline:
    """A pipeline whose requests have tools, of which those with a function are answered."""
    functions: dict[str, ToolFunction] = more.pop("functions", {"look_up": lambda call: f"shipped: {call.id}"})
    asked = params(tools=list(tools or [LOOK_UP]), **more.pop("params", {}))
    hooks = Hooks(tool_functions=functions, **more.pop("hooks", {}))
    return world.pipeline(
        rows, params=asked, hooks=hooks, retry={"paused": paused, **more.pop("retry", {})}, **more
    )


def picodollars(costs: pd.Series[Any]) -> int:
    return sum(round(float(cost) * PICODOLLARS) for cost in costs.dropna())


def test_the_results_of_tools_follow_their_calls_in_one_message(world: World) -> None:
    """Every call has its result, in the order of the calls, and the answer is passed back as it came."""
    calls: list[ToolCall] = []

    def look_up(call: ToolCall) -> list[dict[str, Any]]:
        calls.append(call)
        call.params.clear()  # it is the function's own
        call.input["order"] = "changed"
        return [{"type": "text", "text": "shipped"}]

    def note(call: ToolCall) -> str:
        raise ToolFailed("there is no note")

    functions = {"look_up": look_up, "note": note}
    pipeline = calling(world, texts(3) | {"same": "the text of row 0"}, LOOK_UP, NOTE, SEARCH, functions=functions)
    scripted(world, "tool_use", "tool_use")
    table = world.run(pipeline).set_index("id")
    assert [len(batch) for batch in sent(world)] == [3, 3, 3]
    assert list(table["stop_reason"]) == ["end_turn"] * 4 and list(table["attempts"]) == [3] * 4
    assert table["response_text"].str.contains("shipped").all() and table.loc["same", "shared_with"] == "row-0"
    stored = responses(world, pipeline)
    assert table["output_tokens"].sum() == stored["output_tokens"].sum()
    assert picodollars(table["cost_usd"]) == picodollars(stored["cost_usd"])
    contents = [orjson.loads(one)["content"] for one in stored["response_json"]]
    for first, last in zip(sent(world)[0], sent(world)[2], strict=True):
        question, *turns = last["messages"]
        assert [question] == first["messages"] and last | {"messages": []} == first | {"messages": []}
        for answer, results in zip(turns[::2], turns[1::2], strict=True):
            assert answer["content"] in contents
            ids = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
            assert results == {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": ids[0],
                        "content": [{"type": "text", "text": "shipped"}],
                    },
                    {
                        "type": "tool_result",
                        "tool_use_id": ids[1],
                        "is_error": True,
                        "content": "there is no note",
                    },
                ],
            }
    assert len(calls) == 6 and {call.name for call in calls} == {"look_up"}
    nothing_more(world, pipeline)


def test_a_call_without_a_function_ends_the_turn_and_so_does_the_limit(world: World) -> None:
    """Such an answer stays as it is, and only the limit makes it one that is not whole."""
    pipeline = calling(world, texts(1), LOOK_UP, NOTE)
    scripted(world, "tool_use")
    table = world.run(pipeline)
    assert list(table["stop_reason"]) == ["tool_use"] and table["is_ok"].all()
    assert world.collect(pipeline).results.truncated == 0  # type: ignore[union-attr]
    assert not examine(world.root, pipeline).stopped.total()  # type: ignore[union-attr]
    limited = calling(world, texts(1, "other"), paused=1, name="limited")
    scripted(world, "tool_use", "tool_use")
    table = world.run(limited)
    assert list(table["stop_reason"]) == ["tool_use"] and list(table["attempts"]) == [2]
    assert table["tool_calls"].notna().all() and not table["is_ok"].any()
    assert world.collect(limited).results.truncated == 1  # type: ignore[union-attr]
    assert examine(world.root, limited).stopped == {"tool_use": 1}  # type: ignore[union-attr]
    nothing_more(world, limited)


def test_an_output_schema_is_for_the_end_of_the_turn(world: World) -> None:
    """An answer that waits for a tool is not invalid: not for `retry.invalid`, and not for a pilot."""
    more = {"output_schema": SCHEMA, "retry": {"invalid": 1}, "pilot": 1}
    pipeline = calling(world, texts(3), **more)
    scripted(world, "tool_use", None, "tool_use")  # the pilot, its follow-up, the others
    table = world.run(pipeline)
    assert table["word"].notna().all() and table["error_type"].isna().all()
    assert all(last["messages"][-1]["content"][0]["content"].startswith("shipped") for last in sent(world)[-1])


def test_a_function_that_fails_holds_up_its_answers_and_no_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of its error goes to the model. When the function works again, the chain goes on."""
    works = False

    def look_up(call: ToolCall) -> Any:
        if not works and "row 0" in str(call.params):
            raise ConnectionError("the database is down")
        return "" if works else "shipped"

    pipeline = calling(world, texts(2), functions={"look_up": look_up})
    scripted(world, "tool_use")
    world.send(pipeline)
    world.collect(pipeline)
    report = world.submit(pipeline, unattended=True)
    assert report.planned_again == 1
    assert report.waiting["retries"].startswith(
        "1 answer that called the tool 'look_up' cannot be followed: its function failed with ConnectionError: "
        "the database is down. Correct it, or have it raise ToolFailed"
    )
    assert "the function of the tool 'look_up' failed" in caplog.text and "Traceback" in caplog.text
    done = world.collect(pipeline).results
    assert done is not None and done.counts == {"pending": 1, "succeeded": 1}
    gone = calling(world, texts(2), LOOK_UP, NOTE, functions={"note": look_up})
    assert "no function for it any more" in world.submit(gone, unattended=True).waiting["retries"]
    works = True
    world.finish(pipeline)
    assert [len(batch) for batch in sent(world)] == [2, 1, 1]
    assert sent(world)[2][0]["messages"][-1]["content"][0].keys() == {"type", "tool_use_id"}
    assert list(world.table(pipeline)["stop_reason"]) == ["end_turn"] * 2
    nothing_more(world, pipeline)


def test_without_its_function_an_answer_is_left_as_it_is(world: World) -> None:
    """Those that waited, too, once the requests are built again."""
    scripted(world, "tool_use")
    broken = calling(world, texts(2), functions={"look_up": lambda call: 1 / 0})
    world.send(broken)
    world.collect(broken)
    assert world.submit(broken, unattended=True).planned_again == 0
    plain = world.pipeline(texts(2), params=params(tools=[LOOK_UP]))
    table = world.run(plain)
    assert list(table["stop_reason"]) == ["tool_use"] * 2 and len(world.accepted()) == 1
    with_function = calling(world, texts(2))
    assert list(world.run(with_function)["stop_reason"]) == ["end_turn"] * 2


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (None, "its function returned a NoneType"),
        ({"a": 1}, "its function returned a dict"),
        ([{"type": "text", "text": {1}}], "has no JSON form"),
        ("\ud800", "has no JSON form"),
        ([{"text": "x"}], "is no content: content[0].type: this field is required here"),
        (["x"], "is no content: content[0]"),
        ([{"type": "txt", "text": "x"}], "is no content: content[0].type: there is no 'txt' here"),
        ("x" * 1000, "the request would be larger than 1.0 kB"),
        (ToolFailed("\ud800"), "has no JSON form"),
    ],
)
def test_what_is_no_content_is_not_sent(returned: Any, problem: str) -> None:
    def function(call: ToolCall) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    results, lost = ToolResults({"look_up": function}, 1000), LostTexts()
    call = {"type": "tool_use", "id": "a", "name": "look_up", "input": {}}
    assert results.of(orjson.dumps({"content": [call]}).decode(), b"{}", ("look_up",)) is None
    results.note_waiting(lost)
    assert lost.requests == 1 and problem in lost.problems[0]


def test_a_call_from_within_code_and_calls_without_time_are_left() -> None:
    results, lost = ToolResults({"look_up": lambda call: "x"}, 1000, until=0.0), LostTexts()
    call = {"type": "tool_use", "id": "a", "name": "look_up", "input": {}}
    by_code = call | {"caller": {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}}
    assert results.of(orjson.dumps({"content": [by_code]}).decode(), b"{}", ("look_up",)) == []
    assert results.of(orjson.dumps({"content": [call]}).decode(), b"{}", ("look_up",)) is None
    results.note_waiting(lost)
    assert (lost.postponed, lost.requests) == (1, 0)


def test_a_run_without_time_leaves_the_calls_to_the_next_one(world: World) -> None:
    pipeline = calling(world, texts(2))
    scripted(world, "tool_use")
    world.send(pipeline)
    world.collect(pipeline)
    given: dict[str, Any] = {"unattended": True, "tools": pipeline.hooks.tool_functions}
    report = submit_batches(world.root, pipeline.name, seconds=0.0, **given)
    assert report is not None and (report.planned_again, report.waiting) == (0, {})
    with world.root.ledger.read() as tx:
        assert submissions.newest(tx, pipeline.name, "").ask_again == 2  # type: ignore[union-attr]
    world.finish(pipeline)
    assert [len(batch) for batch in sent(world)] == [2, 2]


def test_everything_knows_the_chain_of_a_tool(world: World) -> None:
    """A retry, a lost ledger and the spend table. A request that failed gets another result of its tool."""
    calls: list[str] = []

    def look_up(call: ToolCall) -> str:
        calls.append(call.id)
        return f"result {len(calls)}"

    pipeline = calling(world, texts(2), functions={"look_up": look_up})
    scripted(world, "tool_use", "overloaded_error")
    world.send(pipeline)
    world.collect(pipeline)
    world.submit(pipeline, unattended=True)
    lose_ledger(world)
    world.submit(pipeline)
    world.finish(pipeline)
    assert [len(batch) for batch in sent(world)] == [2, 2, 2]
    assert sorted(calls[:2]) == sorted(calls[2:]) and len(set(calls)) == 2
    assert list(world.table(pipeline)["attempts"]) == [3, 3]
    build_spend(world.root)
    spend, stored = pd.read_parquet(world.path(*SPEND)), responses(world, pipeline)
    assert picodollars(spend["cost_usd"]) == picodollars(stored["cost_usd"])
    assert spend["superseded_usd"].sum() == spend["paid_twice_usd"].sum() == 0
    nothing_more(world, pipeline)


def test_a_last_answer_that_still_calls_a_tool_was_paid_in_vain(world: World) -> None:
    """The answer before it is no waste: it was continued. Neither is one that nothing could have answered."""
    pipeline = calling(world, texts(2), paused=1)
    scripted(world, "tool_use", "tool_use")
    assert not world.run(pipeline)["is_ok"].any()
    scripted(world, "tool_use")
    assert world.run(world.pipeline(texts(2), name="final", params=params(tools=[LOOK_UP])))["is_ok"].all()
    build_spend(world.root)
    spend, stored = pd.read_parquet(world.path(*SPEND)), responses(world, pipeline)
    last = picodollars(stored.loc[stored["attempts"] == 2, "cost_usd"])
    assert last == picodollars(spend["truncated_usd"]) > 0
    assert last == sum(picodollars(spend[name]) for name in PAID_IN_VAIN)


def test_nothing_is_left_of_a_result_when_its_row_is_erased(world: World) -> None:
    pipeline = calling(world, {"gone-1": "a text", "stays": "another"}, functions={"look_up": _secret})
    scripted(world, "tool_use")
    world.run(pipeline)
    assert erase(world.root, pipeline.name, ["gone-1"]).is_complete
    everything = every_text(world.path())
    assert "the secret of a text" not in everything and "the secret of another" in everything


def _secret(call: ToolCall) -> str:
    return f"the secret of {call.params['messages'][0]['content']}"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"paused": 0}, r"retry.paused: with tool_functions, write how often"),
        (
            {"functions": {"lookup": print}},
            r"tool_functions: params.tools has no tool 'lookup': did you mean 'look_up'",
        ),
        ({"functions": ["look_up"]}, r"tool_functions: give a map of functions"),
        ({"functions": {"look_up": "look_up"}}, r"tool_functions: give a map of functions"),
        ({"params": {"tool_choice": {"type": "any"}}}, r"params.tool_choice: every answer is then a call"),
        ({"params": {"tool_choice": {"type": "tool", "name": "look_up"}}}, r"params.tool_choice: every answer is"),
    ],
)
def test_functions_that_cannot_be_called_or_never_end_are_refused(
    world: World, more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        calling(world, texts(1), **more)


def test_a_tool_without_a_function_ends_a_turn_of_forced_calls(world: World) -> None:
    assert calling(world, texts(1), LOOK_UP, NOTE, params={"tool_choice": {"type": "any"}}).follow_ups
    assert calling(world, texts(1), LOOK_UP | {"name": "{{ text }}"}).follow_ups


def run_in_a_process(folder: str, variables: dict[str, str]) -> None:
    """Do what `batch-assets run` does, in a process that is killed. The function never returns the same twice."""
    root = open_root(Settings.from_env(variables))
    functions = {"look_up": lambda call: os.urandom(8).hex()}
    dataset = {"path": "rows.jsonl", "key": "id"}
    hooks, asked = Hooks(tool_functions=functions), params(tools=[LOOK_UP])
    pipeline = make_pipeline(Path(folder), dataset, params=asked, hooks=hooks, retry={"paused": 3})
    with root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
    if newest is None or newest.final_at is None:
        build_requests(root, pipeline)
    submit_batches(root, pipeline.name, tools=functions)
    while True:
        poll(root, now=True)
        done = collect_results(root, pipeline.name).results
        if done is not None and done.final:
            return
        submit_batches(root, pipeline.name, unattended=True, tools=functions)


@pytest.fixture(scope="module")
def python() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def test_killed_anywhere_each_answer_is_followed_once(new_world: Callable[..., World], python: ForkServer) -> None:
    """Whatever the function returned the first time, what was registered is sent, and nothing else."""

    def prepare(world: World, rows: dict[str, str]) -> Pipeline:
        scripted(world, "tool_use", "tool_use")
        return calling(world, rows)

    kill_anywhere(new_world, python, f"{__name__}:run_in_a_process", prepare, step=700)
