"""What a run would cost, before it is sent."""

from __future__ import annotations

import pytest

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.estimate import CostEstimate, estimate_cost
from batch_assets.core.requests.report import AskAgain

from ..support import MODEL, World, params, texts

ALL = AskAgain(refresh=True)


def estimate(world: World, pipeline: Pipeline, again: AskAgain = ALL) -> CostEstimate:
    """Estimate the cost, and check that nothing was written."""
    with world.root.ledger.read():  # opening the root writes its ids
        pass
    before = sorted(world.path().rglob("*.*")), world.query("select id from submission")
    result = estimate_cost(world.root, pipeline, "", again)
    after = sorted(world.path().rglob("*.*")), world.query("select id from submission")
    assert [path for path in after[0] if "ledger" not in path.name] == [
        path for path in before[0] if "ledger" not in path.name
    ]
    assert after[1] == before[1]
    return result


def test_answered_requests_cost_what_they_cost(world: World) -> None:
    pipeline = world.pipeline({**texts(3), "again": texts(1)["row-0"]}, params=params(model="claude-opus-5-5"))
    table = world.run(pipeline)
    cost = estimate(world, pipeline)
    assert (cost.requests, cost.answered, cost.new, cost.notes) == (3, 3, 0, [])
    assert f"3 requests, about ${cost.cost_usd:.4f} (" in cost.as_text
    assert cost.cost_usd == pytest.approx(table["cost_usd"].sum())
    assert (cost.input_tokens, cost.output_tokens) == (
        table["input_tokens"].sum(),
        table["output_tokens"].sum(),
    )
    limited = estimate(world, pipeline, AskAgain(refresh=True, limit=1))
    assert limited.requests == 1
    assert limited.cost_usd == pytest.approx(table["cost_usd"][0])
    nothing = estimate(world, pipeline, AskAgain())
    assert (nothing.requests, nothing.as_text) == (0, "nothing would be sent")


def test_new_requests_are_estimated_from_their_bytes(world: World) -> None:
    """Requests of the same length cost about the same."""
    world.run(world.pipeline(texts(4)))
    pipeline = world.pipeline(texts(8))
    cost = estimate(world, pipeline)
    assert (cost.answered, cost.new) == (4, 4)
    table = world.run(pipeline)
    assert cost.cost_usd == pytest.approx(table["cost_usd"].sum(), rel=0.3)
    assert "4 of them were never answered: estimated from their bytes" in cost.as_text


def test_an_edited_prompt_is_estimated_from_the_mean_of_earlier_answers(world: World) -> None:
    table = world.run(world.pipeline(texts(4)))
    cost = estimate(world, world.pipeline(params=params("Please: {{ text }}")))
    assert (cost.answered, cost.new) == (0, 4)
    assert cost.cost_usd == pytest.approx(table["cost_usd"].sum())
    assert "from the mean of 4 other answers" in cost.as_text


def test_without_any_answer_only_the_prompts_are_counted_and_a_note_says_so(world: World) -> None:
    cost = estimate(world, world.pipeline(texts(2)))
    assert cost.cost_usd is not None
    assert cost.cost_usd > 0
    assert cost.output_tokens == 0
    assert "the cost is that of the prompts alone" in cost.as_text


def test_an_unknown_price_is_reported_and_not_counted_as_0(world: World) -> None:
    pipeline = world.pipeline(texts(2), params=params(model="claude-new-9"), allow_unknown_params=True)
    world.emulator.settings(latency=3600)
    cost = estimate(world, pipeline)
    assert (cost.cost_usd, cost.unpriced, cost.unpriced_models) == (None, 2, {"claude-new-9"})
    assert cost.as_text.startswith("2 requests, cost unknown")
    assert "without 2 requests that have no price (models: claude-new-9)" in cost.as_text


def test_models_without_a_price_are_named(world: World) -> None:
    rows = {"known": MODEL, "unknown": "claude-new-9"}
    cost = estimate(world, world.pipeline(rows, params=params(model="{{ text }}")))
    assert cost.unpriced == 1
    assert cost.cost_usd is not None
    assert cost.cost_usd > 0


def test_a_very_small_cost_is_not_shown_as_0(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    world.run(pipeline)
    assert "1 request, less than $0.0001" in estimate(world, pipeline).as_text
