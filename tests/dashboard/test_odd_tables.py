"""What the dashboard reads of tables with odd names and values, under a root with an odd name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.io.layout import results_parts
from batch_assets.dashboard import charts, explorer, sections
from batch_assets.dashboard.live import Live
from batch_assets.emulator import Emulator
from tests.core.support import CREATE, texts
from tests.dashboard.test_dashboard import WORDS, live_of, new_world

FIRST = datetime(2026, 1, 5, 10, 0, 0, 250_000)
LARGE = 2**53 + 1
PARTITION = "a/b [1]"
SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "mood": {"enum": ["glad", "sad"]},
        "Number": {"enum": list(range(100, 200))},
    },
    "required": ["answer", "mood", "Number"],
    "additionalProperties": False,
}
ROWS = {
    "at": [FIRST, FIRST + timedelta(microseconds=250_000)],
    "text": ["one", "two"],
    "Text": ["ONE", "TWO"],
    "key": ["k1", "k2"],
    "result": ["r1", "r2"],
    "file_row_number": [7, 7],
    "filename": ["f1", "f2"],
    "position": [9, 9],
    "number": [LARGE, 2026],
    "share": pa.array([0.1, 2.0], pa.float32()),
    "mood_1": ["m1", "m2"],
}


@pytest.fixture(scope="module")
def live(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("world") / "at=2026" / "mood=[1] *?"
    folder.mkdir(parents=True)
    world = new_world(emulator, folder)
    pq.write_table(pa.table(ROWS), folder / "rows.parquet")
    dataset = {"path": "rows.parquet", "key": "at", "columns": list(ROWS)}
    world.run(world.pipeline(name="odd", dataset=dataset, output_schema=SCHEMA), PARTITION)
    (folder / "lines.jsonl").write_text('{"id": "a", "text": "one"}\nno JSON\n')
    broken = {"path": "lines.jsonl", "key": "id", "bad_rows": "reject"}
    world.run(world.pipeline(name="unread", dataset=broken))
    kinds = {"type": "object", "properties": {"kind": {"enum": [f"kind {number}" for number in range(20)]}}}
    kinds |= {"required": ["kind"], "additionalProperties": False}
    world.run(world.pipeline(texts(60), name="many", output_schema=kinds))
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"malformed": 0.4, "refusal": 0.3}}}])
    world.run(world.pipeline(texts(20, "word"), name="unusable", output_schema=kinds))
    world.run(world.pipeline(texts(20, "plain"), name="untyped"))
    world.emulator.reset_faults()
    yield live_of(world.root.settings)
    world.root.close()


def test_columns_have_the_names_and_values_of_the_files(live: Live) -> None:
    rows, problem = live.search("odd", "")
    assert problem is None and [row.partition for row in rows] == [PARTITION] * 2
    row = live.opened(rows[0])[0]
    assert row is not None and row.typed == tuple(SCHEMA["properties"])
    assert set(row.carried) == ROWS.keys() - {"at"}
    of_row = {name: values[0] for name, values in ROWS.items() if name != "share"} | {"share": 0.1}
    assert {name: row.values[name] for name in of_row} == of_row
    assert row.values["mood"] in ("glad", "sad") and row.values["answer"] != row.values["response_text"]
    state = live.look().state
    view = state.pipeline("odd") if state is not None else None
    assert view is not None and live.distributions(view)["mood"].rows == 2


def test_an_enum_with_many_values_shows_the_others_together(live: Live) -> None:
    state = live.look().state
    view = state.pipeline("many") if state is not None else None
    assert view is not None
    table = pd.read_parquet(Path(live.root.settings.root, "many", *results_parts("many", "")[1:]))
    counted = Counter(table["kind"])
    found = live.distributions(view)["kind"]
    assert dict(found.values) == dict(sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:11])
    assert (found.rows, found.more) == (60, len(counted) - 11) and found.more > 2
    data = charts.distribution("kind", found).to_dict()
    (bars,) = data["datasets"].values() if "datasets" in data else [data["data"]["values"]]
    assert bars[-1]["value"] == f"({found.more} other values)"
    assert sum(bar["rows"] for bar in bars) == 60


@pytest.mark.parametrize("name", ["unusable", "untyped"])
def test_answers_that_cannot_be_used_are_among_the_failures(live: Live, name: str) -> None:
    state = live.look().state
    view = state.pipeline(name) if state is not None else None
    assert view is not None and view.total.results == {"succeeded": 20}
    table = pd.read_parquet(Path(live.root.settings.root, name, *results_parts(name, "")[1:]))
    bad = table[~table["is_ok"]]
    assert view.total.unusable == len(bad) and state is not None
    assert f"20 succeeded; {len(bad)} answers cannot be used" in sections.overview(state, None).text
    found = live.failures(view).causes
    assert sum(failure.rows for failure in found) == len(bad) > 0
    reasons = bad["error_type"].fillna(bad["stop_reason"])
    assert {failure.error_type for failure in found} == set(reasons)
    assert {key for failure in found for key in failure.keys} <= set(bad["id"])
    assert all(str(key) in sections.failures([view], live.failures).text for key in found[0].keys)


def test_failures_are_grouped_by_cause_and_further_ones_are_counted(live: Live) -> None:
    table = pq.read_table(Path(live.root.settings.root, "many", *results_parts("many", "")[1:]))
    messages = [
        *[f"prompt is too long: {200_001 + n} tokens > 200000 maximum" for n in range(30)],
        "something else",
        "something else",
        *[f"it failed {'again ' * n}" for n in range(28)],
    ]
    for name, values in {
        "error_message": messages,
        "result_type": ["errored"] * 60,
        "error_type": ["e"] * 60,
    }.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    path = Path(live.root.settings.root, "varied", *results_parts("varied", "")[1:])
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    state = live.look().state
    view = state.pipeline("many") if state is not None else None
    assert view is not None
    found = live.failures(replace(view, name="varied"))
    long, same, *others = found.causes
    keys = [str(key) for key in table["id"].to_pylist()]
    assert (long.rows, long.message, long.is_varied, long.keys) == (30, messages[0], True, (*keys[:3],))
    assert (same.rows, same.message, same.is_varied, same.keys) == (2, "something else", False, (*keys[30:32],))
    assert len(others) == 18 and found.others == 10
    shown = sections.failures([replace(view, name="varied")], live.failures).text
    assert f"e – such as: {messages[0]}".replace(">", "&gt;") in shown and "further causes" in shown


def test_each_row_can_be_chosen_and_opened(live: Live) -> None:
    rows, _ = live.search("odd", "")
    shown: Any = explorer.found_rows(rows)
    for number, row in enumerate(rows):
        line = shown.data[number]
        numbers = [("9007199254740993", "0.1"), ("2026", "2.0")][number]
        assert (line["number"], line["share"], line["key"]) == (*numbers, f"k{number + 1}")
        assert line["response_text"] == row.values["response_text"] and line["answer"] == row.values["answer"]
        shown._update([str(number)])
        assert explorer.chosen_row(rows, shown) == row
        whole, (version,), _ = live.opened(row)
        assert whole is not None and whole.values["key"] == f"k{number + 1}"
        assert version.answers[0].values["response_text"] == row.values["response_text"]


def test_a_row_is_found_by_each_text_of_its_key(live: Live) -> None:
    for text in ("2026-01-05 10:00:00.250000", "2026-01-05T10:00:00.25", "2026-01-05 10:00:00.25"):
        (row,), _ = live.search("odd", text)
        assert row.values["key"] == "k1"


def test_amounts_of_the_emulator_are_called_so_whatever_api_is_set(live: Live) -> None:
    look = Live(replace(live.root.settings, emulator_url=None), WORDS).look()
    assert "amounts are not billed" in sections.notices(look).text


def test_a_row_without_a_key_can_be_opened(live: Live) -> None:
    rows, _ = live.search("unread", "")
    assert [row.key for row in rows] == ["a", None]
    row = live.opened(rows[1])[0]
    assert row is not None and row.values["error_type"] == "unreadable_row"
    assert live.versions("unread", "", row.key) == []


def test_a_table_that_cannot_be_read_hides_no_other_pipeline(live: Live) -> None:
    table = Path(live.root.settings.root, "odd", *results_parts("odd", PARTITION)[1:])
    written = table.read_bytes()
    table.write_bytes(b"no table")
    try:
        fresh = live_of(live.root.settings)
        state = fresh.look().state
        assert state is not None and [each.name for each in state.pipelines] == [
            "many",
            "odd",
            "unread",
            "untyped",
            "unusable",
        ]
        failed = sections.failures(state.pipelines, fresh.failures).text
        assert "unreadable_row" in failed and "cannot be read" in failed
        (row, _), _ = live.search("unread", "")
        assert "cannot be read" in sections.distributions(state.pipelines, fresh.distributions).text
        (index,) = Path(live.root.settings.root, "unread", "requests").rglob("index.parquet")
        index.write_bytes(b"no index")
        whole, versions, problem = fresh.opened(row)
        assert whole is not None and versions == [] and "requests cannot be read" in (problem or "")
        assert "requests cannot be read" in explorer.whole_row(whole, versions, problem).text
    finally:
        table.write_bytes(written)
