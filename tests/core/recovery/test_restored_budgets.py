"""A ledger restored from an older copy: what it does not know counts in budgets before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.reserve import know_what_counts
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS

from ..batches.test_budget import ONE, counted, sent
from ..support import World, texts, write_rows
from .test_restored_ledger import forgotten

CAP = 10 * ONE


def pipeline_of(world: World, name: str, budget: dict[str, object] | None, **fields: object) -> Pipeline:
    source = {"dataset": {"path": f"{name}.jsonl", "key": "id"}}
    pipeline = world.pipeline(name=name, budget=budget, **{**source, **fields})
    record_caps(world.root, [pipeline])
    return pipeline


def test_what_another_partition_has_sent_counts(world: World) -> None:
    world.emulator.settings(latency=3600)
    for key in "ab":
        write_rows(world.folder / f"{key}.jsonl", texts(9, key))
    dataset = {"path": "{partition}.jsonl", "key": "id"}
    fields = {"dataset": dataset, "partitions": {"static": ["a", "b"]}}
    pipeline = pipeline_of(world, "asked", {"max_usd": CAP, "per": "month"}, **fields)
    world.build(pipeline, "b")
    with forgotten(world):
        world.send(pipeline, "a")
    assert sent(world) == 9
    world.submit(pipeline, "b")
    assert sent(world) <= 10
    assert world.states(pipeline, "b") != ["submitted"]


@pytest.mark.parametrize("is_known", [False, True])
def test_what_another_pipeline_has_sent_counts_in_the_roots_budget(
    new_world: Callable[..., World], is_known: bool
) -> None:
    variables = {"BATCH_ASSETS_BUDGET": f"{CAP:.6f} per month"}
    world = new_world(**variables)
    world.emulator.settings(latency=3600)
    for name in ("one", "two"):
        write_rows(world.folder / f"{name}.jsonl", texts(9, name))
    two = pipeline_of(world, "two", None)
    world.build(two)
    if is_known:
        world.build(pipeline_of(world, "one", None))
    with forgotten(world):
        world.send(pipeline_of(world, "one", None))
    world.reopened(**variables)
    assert sent(world) == 9
    world.submit(two)
    assert counted(world) <= CAP * PICODOLLARS
    assert sent(world) <= 10


@pytest.mark.parametrize(
    ("budget", "of_root", "looked_at"),
    [
        (None, {}, set()),
        ({"max_usd": 1, "per": "run"}, {}, set()),
        ({"max_usd": 1, "per": "day"}, {}, {"one"}),
        (None, {"BATCH_ASSETS_BUDGET": "1 per month"}, {"one", "two"}),
    ],
)
def test_each_pipeline_that_counts_is_looked_at_once(
    new_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    budget: dict[str, object] | None,
    of_root: dict[str, str],
    looked_at: set[str],
) -> None:
    world = new_world(**of_root)
    pipelines = []
    for name in ("one", "two"):
        write_rows(world.folder / f"{name}.jsonl", texts(1, name))
        pipelines.append(pipeline_of(world, name, budget))
        world.build(pipelines[-1])
    world.reopened(**of_root)
    listed: Counter[str] = Counter()
    list_below = Storage.names_below

    def names_below(storage: Storage, *parts: str) -> object:
        listed[parts[0]] += 1
        return list_below(storage, *parts)

    monkeypatch.setattr(Storage, "names_below", names_below)
    for _ in range(2):
        know_what_counts(world.root, "one")
    assert listed == Counter(looked_at)
    world.submit(pipelines[0])
    assert listed == Counter(looked_at)
