"""The part of the kill campaign that fits into the test suite. `make chaos` runs all of it."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.emulator import text_digest
from tests.chaos import kills
from tests.chaos.auditor import Audit, audit
from tests.chaos.bench import Bench
from tests.chaos.faults import GROUPS, cases, run_case
from tests.chaos.faults.case import post
from tests.chaos.judge import Verdict, rows_lost
from tests.chaos.table import COLUMNS, PAGE, Line, as_markdown, as_text, with_table
from tests.core.support import CREATE, texts

POSITIONS = 3
"""Of each stage: one in each part of it."""
GROUPS_TRIED = 5
"""Of the groups of faults, others in every run."""


@pytest.fixture(scope="module")
def positions(bench: Bench) -> dict[str, tuple[str, ...]]:
    """The names of the kill positions of each stage."""
    return {stage: kills.positions(bench, stage) for stage in kills.STAGES}


@pytest.mark.parametrize("stage", kills.STAGES)
def test_a_stage_killed_at_any_position_loses_nothing(
    bench: Bench, positions: dict[str, tuple[str, ...]], stage: str
) -> None:
    count = len(positions[stage])
    assert count > 30
    chosen = random.Random()
    parts = [count * part // POSITIONS for part in range(POSITIONS + 1)]
    killed = 0
    for first, last in pairwise(parts):
        verdict, where, kill = kills.kill_at(bench, stage, chosen.randint(first + 1, last))
        assert verdict.good, f"{where}: {verdict}"
        killed += kill
    assert killed >= POSITIONS - 1  # a stage may end a little earlier than in the run that was counted


def test_every_commit_rename_send_and_parquet_file_is_a_position(positions: dict[str, tuple[str, ...]]) -> None:
    seen = {stage: set(names) for stage, names in positions.items()}
    for stage, names in seen.items():
        assert {"before commit", "after commit", "before execute"} <= names, stage
        assert ("after replace" in names) and ("before fsync" in names), stage
    for stage in ("batches", "retry", "collection"):
        assert {"before socket.send", "after socket.send", "before socket.recv"} <= seen[stage], stage
    for stage in ("requests", "collection", "results"):
        assert {"before ParquetWriter", "after ParquetWriter.close"} <= seen[stage], stage


@pytest.mark.parametrize(
    ("stage", "begins", "ends"),
    [
        ("batches", "after socket.send", "before replace"),  # a receipt
        ("retry", "before fsync", "before replace"),  # a request file of the next attempt
        ("collection", "after replace", "after commit"),  # a download whose answers are stored
    ],
)
def test_a_file_being_written_leaves_nothing_behind(bench: Bench, stage: str, begins: str, ends: str) -> None:
    with bench.trial(bench.prepared(stage)) as trial:
        end = trial.run(stage, kill_at=(begins, ends))
        assert end.killed_at == ends, end.log
        assert list(trial.root.rglob("*.tmp")) or stage == "collection"
        assert trial.finish(from_dataset=True).problems == []


def test_stages_killed_at_random_times_lose_nothing(bench: Bench) -> None:
    chosen = random.Random()
    killed = 0
    while killed < 3:
        verdict, where, kill = kills.kill_at_random(bench, chosen.getrandbits(32), most=3)
        assert verdict.good, f"{where}: {verdict}"
        killed += kill


@pytest.mark.parametrize("number", range(GROUPS_TRIED))
def test_one_position_of_a_fault_of_some_groups(bench: Bench, number: int) -> None:
    case = random.choice(list(random.choice(list(GROUPS.values()))()))
    verdict, where, struck = run_case(bench, case)
    assert struck, f"{case.fault}: {where}"
    assert verdict.good, f"{case.fault}: {where}: {verdict}"


def test_every_position_of_a_fault_has_a_name_of_its_own() -> None:
    names = [(case.fault, case.where) for case in cases()]
    assert len(names) == len(set(names))
    assert not any("|" in fault for fault, _ in names)


def test_the_judge_sees_a_request_paid_twice_and_an_orphan(bench: Bench) -> None:
    """Submit a batch behind the ledger's back, with requests that are already paid for."""
    with bench.trial(bench.prepared("requests")) as trial:
        assert trial.finish(from_dataset=True).good
        batch, ids = next(iter(trial.accepted().items()))
        body = (bench.emulator.state / "bodies" / f"{batch}.json").read_bytes()
        post(bench, trial, body)
        verdict = trial.finish(from_dataset=True)
        assert (verdict.lost, verdict.twice, verdict.orphaned) == (0, len(ids), 1)


def test_the_auditor_sees_an_answer_that_is_not_counted_or_counted_twice(bench: Bench) -> None:
    with bench.trial(bench.prepared("requests")) as trial:
        verdict = trial.finish(from_dataset=True)
        assert verdict.good and verdict.audit.exact == verdict.audit.batches == 3
        assert verdict.audit.spent == verdict.audit.billed > 0
        path = trial.root / "spend_batches.parquet"
        table = pq.read_table(path)
        for rows in (table.slice(1), pa.concat_tables([table, table.slice(0, 1)])):
            pq.write_table(rows, path)
            seen = audit(trial.root, bench.emulator, trial.batches())
            assert seen.exact == 2 and "spent" in seen.differences[0] and "in its batches" in seen.differences[-1]


def test_the_judge_sees_a_repeated_create(bench: Bench) -> None:
    """Without a ledger that remembers the first create, a second one is sent: the campaign must find this."""
    with bench.trial(bench.prepared("batches")) as trial:
        kept = (trial.root / "ledger.db").read_bytes()
        bench.emulator.faults([{"match": {**CREATE, "nth": 1}, "action": {"drop": "after_commit"}}])
        trial.run("batches")
        bench.emulator.reset_faults()
        for path in trial.root.glob("*/requests/*/*.batch.json"):
            path.unlink()
        for path in trial.root.glob("ledger.db*"):
            path.unlink()
        (trial.root / "ledger.db").write_bytes(kept)
        verdict = trial.finish(from_dataset=False, by_user=True)  # this ledger has no user's word for sending
        assert verdict.twice > 0
        assert verdict.orphaned > 0


def _row(key: str, text: str, **other: Any) -> dict[str, Any]:
    own = f"An emulated reply to text {text_digest(text)}: {text}"
    return {"id": key, "result_type": "succeeded", "response_text": own, "error_type": None} | other


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        ([_row("row-0", "the text of row 0"), _row("row-1", "the text of row 1")], 0),
        ([_row("row-0", "the text of row 0")], 1),
        ([_row("row-0", "the text of row 0"), _row("row-1", "the text of row 0")], 1),
        ([_row("row-0", "the text of row 0"), _row("row-1", "", result_type="pending", response_text=None)], 1),
        ([_row("row-0", "the text of row 0"), *[_row("row-1", "the text of row 1")] * 2], 1),
        ([_row("row-0", "the text of row 0"), _row("row-1", "the text of row 1"), _row("row-9", "")], 1),
    ],
)
def test_what_counts_as_a_lost_row(tmp_path: Path, rows: list[dict[str, Any]], lost: int) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "results.parquet")
    assert rows_lost(tmp_path / "results.parquet", texts(2)) == lost
    assert rows_lost(tmp_path / "nothing.parquet", texts(2)) == 2


@pytest.mark.parametrize(
    ("end", "lost"),
    [
        ({"result_type": "canceled"}, 0),
        ({"result_type": "canceled", "error_type": "odd"}, 1),
        ({"result_type": "expired"}, 1),
        ({}, 1),
    ],
)
def test_a_row_with_another_expected_end_must_have_it(tmp_path: Path, end: dict[str, str], lost: int) -> None:
    rows = [_row("row-0", "the text of row 0"), _row("row-1", "the text of row 1", **end)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "results.parquet")
    assert rows_lost(tmp_path / "results.parquet", texts(2), {"row-1": "canceled"}) == lost


def test_the_table_shows_what_went_wrong() -> None:
    line = Line("kill -9 in batches")
    line.add(Verdict(), "position 1", 1)
    line.add(Verdict(), "position 999", 0)  # ended before the position
    assert (line.tried, line.passed_by, line.bad) == (1, 1, [])
    wrong = Audit(differences=["b: 1 spent, 2 billed"])
    line.add(Verdict(lost=3, twice=2, orphaned=1, audit=wrong), "position 7", 1)
    counts = "3 rows lost, 2 requests paid twice, 1 orphaned batches"
    assert line.bad == [f"kill -9 in batches: position 7: {counts}; b: 1 spent, 2 billed"]
    assert as_markdown([line]).splitlines()[-1] == "| kill -9 in batches | 2 | 3 | 2 | 1 | 1 |"
    assert as_text([line]).splitlines()[-1].split() == ["kill", "-9", "in", "batches", "2", "3", "2", "1", "1"]


def test_the_page_has_the_columns_of_the_table() -> None:
    page = PAGE.read_text("utf-8")
    header, row = f"| {' | '.join(COLUMNS)} |", "| a fault | 0 | 0 | 0 | 0 | 0 |"
    assert header in page, "write it again: python -m tests.chaos --page"
    changed = with_table(page, [Line("a fault")])
    before, _, after = page.partition(header)
    assert changed.startswith(before) and changed.count(header) == 1 and row in changed
    assert len(changed.splitlines()) < len(page.splitlines()) and "kill -9 in batches" in after
    assert "kill -9 in batches |" not in changed, "the old rows are gone"
