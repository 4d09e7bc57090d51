"""A row with answers of every kind at once: of a chain, of live calls, imported, and of an upload that is lost."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from batch_assets.core.batches.poll import poll
from batch_assets.core.imports.run import import_answers
from batch_assets.core.io.layout import SPEND, SPEND_BATCHES, SPEND_TABLES
from batch_assets.core.spend.amounts import AMOUNTS, COUNTED
from batch_assets.core.spend.build import build_spend
from batch_assets.dashboard.row_history import versions_of
from batch_assets.dashboard.tables import Tables

from ..batches.test_rescue import RESCUED
from ..imports.test_import import made_elsewhere
from ..support import CREATE, LIST, World, params
from .support import GONE, ROWS, SECRET, erased, every_text

RULES = {"retry": {"truncated": {"times": 2}}, **RESCUED}


def spent(world: World) -> pd.DataFrame:
    """What was paid, by day and model: the columns that no table of results changes."""
    build_spend(world.root)
    frame: pd.DataFrame = pd.read_parquet(world.path(*SPEND))
    paid = [name for name in (*COUNTED, *AMOUNTS, "high_usd") if name != "invalid_usd"]
    return frame[["day", "pipeline", "partition", "model", "service_tier", "kind", *paid]]


def asked(system: str, max_tokens: int = 10) -> dict[str, Any]:
    return params(system=system) | {"max_tokens": max_tokens}


def run_all(world: World) -> list[str]:
    """Have a chain after a lost upload, an imported answer, and live calls; return the custom_ids of the row."""
    hidden = {"match": LIST, "action": {"hide_from_list": 3600}}
    world.emulator.faults([{"match": CREATE | {"times": 1}, "action": {"drop": "after_commit"}}, hidden])
    chained = world.run(world.pipeline(ROWS, params=asked("Chained"), **RULES))
    assert (chained["attempts"] > 1).all()
    (trace,) = world.path("asked", "requests").rglob("*.resent.json")
    assert json.loads(trace.read_bytes())["uploads"]
    elsewhere = {
        key: {**asked("Imported", 100), "messages": [{"role": "user", "content": text}]}
        for key, text in ROWS.items()
    }
    lines = [json.dumps({"custom_id": key, "params": each}) for key, each in elsewhere.items()]
    (requests := world.folder / "elsewhere.jsonl").write_text("\n".join(lines))
    pipeline = world.pipeline(params=asked("Imported", 100), **RULES)
    imported = import_answers(world.root, pipeline, "", made_elsewhere(world, elsewhere), requests=requests)
    assert imported.answers == len(ROWS)
    tables = [chained, world.run(pipeline)]
    rescued = world.pipeline(params=asked("Rescued", 100), **RULES)
    world.send_late(rescued)
    world.submit(rescued, unattended=True)
    assert len(world.live_calls()) == len(ROWS)
    world.emulator.end_batches()
    poll(world.root, now=True)
    world.finish(rescued)
    tables.append(world.table(rescued))
    return [custom_id for table in tables for custom_id in table.loc[table["id"] == GONE, "custom_id"]]


def test_nothing_is_left_of_a_row_with_answers_of_every_kind_but_what_it_cost(world: World) -> None:
    custom_ids = run_all(world)
    tables = Tables(world.root)
    versions = versions_of(world.root, tables, "asked", "", GONE)
    assert [len(version.answers) for version in versions] == [2, 1, 3]
    before = spent(world)
    assert set(before["service_tier"]) == {"batch", "live"} and set(before["kind"]) == {"known", "unknown"}
    world.query("update intent set watch_until = 1 where watch_until is not null")  # until then the row waits
    report = erased(world, world.pipeline(params=asked("Rescued", 100), **RULES))
    assert report.is_complete, list(report.open_ends())
    everything = every_text(world.path())
    for text in (GONE, SECRET, *(custom_id[-22:] for custom_id in custom_ids)):
        assert text not in everything
    assert versions_of(world.root, tables, "asked", "", GONE) == []
    pd.testing.assert_frame_equal(spent(world), before)
    for kept in (SPEND, SPEND_BATCHES, SPEND_TABLES):
        world.path(*kept).unlink()
    pd.testing.assert_frame_equal(spent(world), before)
