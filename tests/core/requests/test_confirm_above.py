"""`confirm_above`: what may cost more is held until a user approves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.batches.approve import approve
from batch_assets.core.batches.caps import record_caps
from batch_assets.core.errors import UnreachableError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain, RequestsReport

from ..support import LIST, World, params, texts

# The upper end of one request of these tests is about $0.00003, by its max_tokens.
FEW, MANY = 0.0002, 1.0


def states(world: World) -> set[str]:
    """The states of the request files in flight."""
    return {row.state for row in world.query("select state from request_file where state != 'superseded'")}


def test_requests_above_the_amount_are_held_and_those_below_are_not(world: World) -> None:
    dear = world.build(world.pipeline(texts(20), confirm_above=FEW))
    assert dear.why_held is not None and dear.why_held.startswith("it may cost $0.000")
    assert dear.why_held.endswith(", and confirm_above is $0.0002")
    assert states(world) == {"held"}
    assert world.submit(world.pipeline()).submitted == []
    manifest = world.submission_folder(world.pipeline(), dear) / "manifest.json"
    assert '"hold":"confirm"' in manifest.read_text().replace(" ", "")
    for pipeline in (world.pipeline(texts(20), confirm_above=MANY), world.pipeline(texts(2), confirm_above=FEW)):
        assert world.build(pipeline).why_held is None
        assert states(world) == {"ready"}


def test_nothing_is_held_without_the_field_or_with_approval(world: World) -> None:
    assert world.build(world.pipeline(texts(20))).why_held is None
    pipeline = world.pipeline(texts(20), confirm_above=0)
    approved = world.build(pipeline, confirmation=Confirmation(pipeline, is_approved=True))
    assert approved.why_held is None
    assert states(world) == {"ready"}


def test_an_unknown_cost_is_held_and_says_why(world: World) -> None:
    made = params(model="claude-new-9")
    pipeline = world.pipeline(texts(1), params=made, allow_unknown_params=True, confirm_above=MANY)
    assert world.build(pipeline).why_held == "there is no price for claude-new-9, and confirm_above is $1.0000"
    endless = params(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    searching = world.pipeline(texts(1), params=endless, confirm_above=MANY)
    assert world.build(searching).why_held == "no max_uses limits its web searches, and confirm_above is $1.0000"


def test_an_edited_prompt_is_held_and_a_run_with_nothing_to_send_is_not(world: World) -> None:
    pipeline = world.pipeline(texts(5), confirm_above=FEW)
    world.run(pipeline)
    assert world.build(pipeline).why_held is None
    edited = world.pipeline(params=params("Please: {{ text }}"), confirm_above=0.0001)
    assert world.build(edited).why_held is not None
    assert states(world) == {"collected", "held"}


def test_a_run_after_the_approval_sends_and_does_not_hold_again(world: World) -> None:
    """It builds again: the requests are the same. More requests, or another prompt, are held again."""
    pipeline = world.pipeline(texts(20), confirm_above=FEW)
    world.build(pipeline)
    assert world.build(pipeline).why_held is not None, "no one has approved"
    approve(world.root, "asked")
    assert world.build(pipeline).why_held is None
    assert states(world) == {"ready"}
    assert world.build(world.pipeline(texts(21), confirm_above=FEW)).why_held is not None
    approve(world.root, "asked")
    edited = world.pipeline(texts(21), params=params("Please: {{ text }}"), confirm_above=FEW)
    assert world.build(edited).why_held is not None
    approve(world.root, "asked")
    assert world.build(edited).why_held is None
    assert len(world.submit(edited).submitted) == 1


LONG = {key: f"{text} " * 1000 for key, text in texts(5).items()}


def is_held_again(world: World, pipeline: Pipeline) -> bool:
    """Whether a plan says so, and the run does it."""
    planned = plan_requests(world.root, pipeline, "", AskAgain())
    is_held = world.build(pipeline).why_held is not None
    assert any("would hold" in warning for warning in planned.warnings) == is_held
    return is_held


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("was_held", [False, True])
def test_longer_requests_are_held_although_as_many_were_let_go(world: World, was_held: bool, longer: bool) -> None:
    above = 0 if was_held else FEW
    pipeline = world.pipeline(texts(5), confirm_above=above)
    assert (world.build(pipeline).why_held is not None) == was_held
    approve(world.root, "asked")
    world.emulator.faults([{"match": LIST, "action": {"status": 500}}])
    with pytest.raises(UnreachableError):
        world.submit(pipeline)
    world.emulator.reset_faults()
    assert is_held_again(world, world.pipeline(LONG if longer else None, confirm_above=above)) == longer


@pytest.mark.parametrize("longer", [False, True])
def test_longer_requests_without_a_price_are_held_although_as_many_were_approved(
    world: World, longer: bool
) -> None:
    made = {"params": params(model="claude-new-9"), "allow_unknown_params": True, "confirm_above": MANY}
    pipeline = world.pipeline(texts(5), **made)
    world.build(pipeline)
    approve(world.root, "asked")
    assert is_held_again(world, world.pipeline(LONG if longer else None, **made)) == longer


@pytest.mark.parametrize(
    ("fields", "hold"),
    [
        ({"budget": {"max_usd": 1e-7, "per": "month"}}, "budget"),
        ({"batching": {"max_requests": 5, "max_in_flight": 5}}, "queue"),
        ({"params": params(system="Shared by all. " * 2000), "cache": "auto"}, "cache"),
    ],
)
def test_what_else_keeps_an_approved_file_back_does_not_undo_the_approval(
    world: World, fields: dict[str, Any], hold: str
) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(10), confirm_above=0, **fields)
    record_caps(world.root, [pipeline])
    assert world.build(pipeline).why_held is not None
    approve(world.root, "asked")
    world.submit(pipeline)
    assert any(row.hold == hold for row in world.query("select hold from request_file"))
    assert plan_requests(world.root, pipeline, "", AskAgain()).warnings == []
    report = world.build(pipeline)
    assert report.written and report.why_held is None
    assert not world.query("select id from request_file where hold = 'confirm' and state = 'held'")


def partitioned(world: World, **batching: bool) -> Pipeline:
    folder: Path = world.folder
    for key in "abcd":
        rows = "".join(f"{number},{key} {number}\n" for number in range(5))
        (folder / f"{key}.csv").write_text(f"id,text\n{rows}")
    dataset = {"path": "{partition}.csv", "key": "id"}
    fields = {"batching": batching} if batching else {}
    return world.pipeline(dataset=dataset, partitions={"static": [*"abcd"]}, confirm_above=0.0004, **fields)


def test_the_sum_of_a_runs_partitions_counts(world: World) -> None:
    pipeline = partitioned(world)
    confirmation = Confirmation(pipeline)
    held = [world.build(pipeline, key, confirmation=confirmation).why_held for key in "abcd"]
    assert held[0] is None and held[-1] is not None
    assert "of the run's other partitions" in held[-1]
    assert [why is None for why in held] == sorted([why is None for why in held], reverse=True)


def test_partitions_that_share_files_are_held_together(world: World) -> None:
    pipeline = partitioned(world, across_partitions=True)
    built = build_partitions(world.root, pipeline, [*"abcd"], AskAgain())
    reports = [report for report in built.values() if isinstance(report, RequestsReport)]
    assert len(reports) == 4
    assert all(report.why_held is not None for report in reports)
    assert states(world) == {"held"}
    approve(world.root, "asked")
    build_partitions(world.root, pipeline, [*"abcd"], AskAgain())
    assert states(world) == {"ready"}


@pytest.mark.parametrize(("above", "is_held"), [(FEW, True), (MANY, False)])
def test_a_plan_says_that_a_run_would_be_held(world: World, above: float, is_held: bool) -> None:
    planned = plan_requests(world.root, world.pipeline(texts(20), confirm_above=above), "", AskAgain())
    assert (
        any("would hold the requests until a user approves" in warning for warning in planned.warnings) == is_held
    )


def test_a_plan_after_the_approval_says_nothing_of_it(world: World) -> None:
    pipeline = world.pipeline(texts(20), confirm_above=FEW)
    world.build(pipeline)
    approve(world.root, "asked")
    assert plan_requests(world.root, pipeline, "", AskAgain()).warnings == []


def test_plans_of_a_runs_partitions_say_which_of_them_would_be_held(world: World) -> None:
    pipeline = partitioned(world)
    planned, built = Confirmation(pipeline), Confirmation(pipeline)
    plans = [plan_requests(world.root, pipeline, key, AskAgain(), confirmation=planned) for key in "abcd"]
    held = [world.build(pipeline, key, confirmation=built).why_held for key in "abcd"]
    assert [bool(plan.warnings) for plan in plans] == [why is not None for why in held]
    assert len({bool(plan.warnings) for plan in plans}) == 2
