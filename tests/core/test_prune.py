"""Old answers are pruned: their texts go, what they cost stays, and nothing is sent again that no row asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.layout import SPEND
from batch_assets.core.open_root import open_root
from batch_assets.core.prune import PruneError, prune
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import build_spend
from batch_assets.core.store.responses import DamagedResponsesError
from tests.forked import ForkServer

from .support import World, environment, params, texts

ALL_AGES = -3600.0  # batches that end within the next hour are old, too
CHANGED = params("Another question: {{ text }}")


def stored(world: World) -> pd.DataFrame:
    files = sorted(world.path("asked", "responses").glob("*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files])


def picodollars(world: World) -> list[int]:
    return [amount for (amount,) in world.query("select picodollars from spend order by batch_id")]


def test_without_yes_nothing_changes_and_the_report_says_what_asking_again_costs(world: World) -> None:
    world.run(world.pipeline(texts(3)))
    first = stored(world)["cost_usd"].sum()
    world.run(world.pipeline(params=CHANGED))
    before = {path: path.read_bytes() for path in world.path("asked", "responses").iterdir()}
    report = prune(world.root, "asked", ALL_AGES)
    assert (report.files, report.answers, report.again, report.needed, report.kept) == (1, 3, 3, 0, 3)
    assert report.picodollars / 1e12 == pytest.approx(first)
    assert report.bytes > 100
    assert {path: path.read_bytes() for path in world.path("asked", "responses").iterdir()} == before
    assert prune(world.root, "asked", 86400.0).answers == 0, "all of them are of today"
    with pytest.raises(PruneError, match=r"nothing was submitted .*; pipelines there: asked$"):
        prune(world.root, "other", ALL_AGES)


def test_a_file_with_a_damaged_text_is_named_and_left_as_it_is(world: World) -> None:
    world.run(world.pipeline(texts(3)))
    (path,) = world.path("asked", "responses").glob("*.parquet")
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(file.schema_arrow.names.index("response_text"))
    damaged = bytearray(path.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size - 2] ^= 0xFF
    path.write_bytes(damaged)

    with pytest.raises(DamagedResponsesError, match=f"{path.name} is damaged: .*CRC.*Restore it from a backup"):
        prune(world.root, "asked", ALL_AGES, is_dry=False, in_force=True)

    assert path.read_bytes() == damaged


def test_answers_that_no_table_has_are_pruned_and_only_a_prompt_that_returns_is_asked_again(world: World) -> None:
    former = world.run(world.pipeline(texts(3)))
    table = world.run(world.pipeline(params=CHANGED))
    before, spent = stored(world), picodollars(world)
    states = world.query("select id, state from batch order by id")
    assert prune(world.root, "asked", ALL_AGES, is_dry=False).answers == 3
    after = stored(world)
    assert after["cost_usd"].tolist() == before["cost_usd"].tolist()
    assert after["output_tokens"].tolist() == before["output_tokens"].tolist()
    assert sorted(after["response_text"].dropna()) == sorted(table["response_text"])
    assert not after["response_json"].str.contains(former["response_text"][0], regex=False).any()
    assert after["response_json"].str.contains('"usage"').all(), "what the answers cost stays in them"
    assert prune(world.root, "asked", ALL_AGES, is_dry=False).answers == 0, "again, it changes nothing"
    assert world.run(world.pipeline(params=CHANGED))["response_text"].equals(table["response_text"])
    assert len(world.accepted()) == 2
    assert world.query("select id, state from batch order by id") == states
    assert picodollars(world) == spent
    assert (world.run(world.pipeline())["result_type"] == "succeeded").all()
    assert [batch["requests"] for batch in world.accepted()] == [3, 3, 3]


def test_answers_of_a_table_are_pruned_only_on_request_and_asked_for_again(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    table = world.run(pipeline)
    assert prune(world.root, "asked", ALL_AGES, is_dry=False).kept == 3
    report = prune(world.root, "asked", ALL_AGES, in_force=True, is_dry=False)
    assert (report.answers, report.needed, report.kept) == (3, 3, 0)
    assert world.table(pipeline)["response_text"].equals(table["response_text"]), "as it was written"
    world.collect(pipeline)
    pruned = world.table(pipeline)
    assert set(zip(pruned["result_type"], pruned["error_type"], strict=True)) == {("canceled", "pruned")}
    assert len(world.accepted()) == 1, "nothing is sent automatically"
    world.submit(pipeline, unattended=True)
    assert len(world.accepted()) == 1
    assert world.run(pipeline)["result_type"].tolist() == ["succeeded"] * 3
    assert [batch["requests"] for batch in world.accepted()] == [3, 3]


def test_a_refresh_supersedes_answers_and_unfinished_ones_are_kept(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    table = world.run(pipeline)
    world.emulator.settings(latency=3600)
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    assert prune(world.root, "asked", ALL_AGES, is_dry=False).answers == 0, "the refresh may fail"
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert prune(world.root, "asked", ALL_AGES, is_dry=False).answers == 2
    world.collect(pipeline)
    assert world.table(pipeline)["response_text"].notna().all()
    assert len(table) == 2


def test_the_table_of_what_was_spent_stays_as_it_is(world: World) -> None:
    """Also what was paid in vain: the answers that a refresh has superseded are still named so."""
    world.run(world.pipeline(texts(3)))
    pipeline = world.pipeline(params=CHANGED)
    world.run(pipeline)
    world.build(pipeline, refresh=True)
    world.submit(pipeline)
    world.finish(pipeline)
    build_spend(world.root)
    before = pd.read_parquet(world.path(*SPEND))
    assert before["superseded_usd"].sum() > 0
    assert prune(world.root, "asked", ALL_AGES, is_dry=False).answers == 6
    assert build_spend(world.root).read == 2, "the files that were pruned"
    assert pd.read_parquet(world.path(*SPEND)).equals(before)


def test_a_lost_ledger_is_rebuilt_with_pruned_answers(world: World) -> None:
    world.run(world.pipeline(texts(3)))
    pipeline = world.pipeline(params=CHANGED)
    world.run(pipeline)
    prune(world.root, "asked", ALL_AGES, is_dry=False)
    world.root.close()
    for ledger in world.path().glob("ledger.db*"):
        ledger.unlink()
    world.reopened()
    assert world.query("select distinct state from request_file") == [("collected",)]
    assert world.build(pipeline).written == 0
    assert len(world.accepted()) == 2


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def prune_all(env: dict[str, str]) -> None:
    """Prune in a process of its own."""
    with open_root(Settings.from_env(env)) as root:
        prune(root, "asked", ALL_AGES, is_dry=False)


@pytest.mark.parametrize("at", range(3, 50, 8))
def test_killed_at_any_boundary_and_run_again(world: World, children: ForkServer, at: int) -> None:
    world.run(world.pipeline(texts(4), batching={"max_requests": 2}))
    pipeline = world.pipeline(params=CHANGED)
    table = world.run(pipeline)
    spent = stored(world)["cost_usd"].sum()
    env = environment(world.emulator.url, world.root.settings.root, world.root.settings.ledger_url)
    (outcome,) = children.run((f"{__name__}:prune_all", {"env": env}), die_at=at)
    assert outcome.error == "", outcome.error
    world.query("update lease set until = 0")
    prune(world.root, "asked", ALL_AGES, is_dry=False)
    assert sorted(stored(world)["response_text"].dropna()) == sorted(table["response_text"])
    assert stored(world)["cost_usd"].sum() == pytest.approx(spent)
    assert [path.suffix for path in world.path("asked", "responses").iterdir()] == [".parquet"] * 3
    assert world.build(pipeline).written == 0
