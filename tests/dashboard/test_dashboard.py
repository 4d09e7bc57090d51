"""The dashboard: what it reads of a real root, and the page in a real browser."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_assets.cli.remedies import error_as_text
from batch_assets.cli.status_errors import errors_of
from batch_assets.cli.what_next import waits_for
from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.poll import poll
from batch_assets.core.ledger.migrations import HEAD
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import SpendReader
from batch_assets.core.spend.spend_table import SpendTotal
from batch_assets.dashboard import charts
from batch_assets.dashboard.explorer import prompt_text
from batch_assets.dashboard.live import Live
from batch_assets.dashboard.server import is_loopback
from batch_assets.dashboard.state import Words
from batch_assets.emulator import Emulator
from benchmarks.ticks import counting
from tests.cli.many_partitions import fill
from tests.core.batches.test_follow_ups import TWICE, short
from tests.core.batches.test_rescue import rescue, rescued
from tests.core.support import CREATE, World, as_new, environment, params, texts
from tests.dagster.browser import find_chromium, open_page
from tests.dashboard_server import DashboardServer

MOODS = ["happy", "sad"]
SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": MOODS, "type": "string"},
        "urgent": {"type": "boolean"},
        "topics": {"type": "array", "items": {"enum": ["price", "taste"]}},
    },
    "required": ["mood", "urgent", "topics"],
    "additionalProperties": False,
}
TEXTS = {f"row-{number}": f"parcel {number} <b>late</b>" for number in range(24)} | {"empty": ""}
WORDS = Words(waits_for, errors_of, error_as_text, lambda: ["defs/x.yaml:3: no such field"])
_PATIENCE = 60.0


def new_world(emulator: Emulator, folder: Path) -> World:
    settings = Settings.from_env(environment(emulator.url, folder / "root"))
    return World(emulator, folder, open_root(settings))


def classify(world: World, system: str, **more: Any) -> Pipeline:
    """A pipeline with typed answers, of which some fail."""
    more = {"output_schema": SCHEMA, "max_failed": 1.0, "retry": {"max_attempts": 1}} | more
    return world.pipeline(TEXTS, name="classify", params=params(system=system), **more)


def run_twice(world: World) -> None:
    """Run a pipeline, and again with another prompt, a budget and failures."""
    world.emulator.faults([{"match": CREATE | {"nth": 2}, "action": {"error_mix": {"billing_error": 0.3}}}])
    world.run(classify(world, "Tell the mood."))
    edited = classify(world, "Tell the mood, shortly.", budget={"max_usd": 5, "per": "day"})
    record_caps(world.root, [edited])
    world.run(edited)
    world.emulator.reset_faults()


def live_of(settings: Settings) -> Live:
    return Live(settings, WORDS)


@pytest.fixture(scope="module")
def world(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = new_world(emulator, tmp_path_factory.mktemp("world"))
    run_twice(world)
    yield world
    world.root.close()


def test_what_it_reads_is_what_was_run(world: World) -> None:
    table = world.table(classify(world, "any"))
    live = live_of(world.root.settings)
    look = live.look()
    assert look.state is not None and look.broken == ("defs/x.yaml:3: no such field",)
    (view,) = look.state.pipelines
    assert (view.total.done, view.total.rows) == (25, 25)
    assert dict(view.total.results) == table["result_type"].value_counts().to_dict()
    assert len(look.state.batches) == 2 and all(each.seconds is not None for each in look.state.batches)
    (budget,) = look.state.budgets
    spend = live.spend(look)
    assert spend is not None and budget.total.settled == SpendTotal.of(spend.rows).cost > 0
    shown = live.distributions(view)
    for name in ("mood", "urgent", "topics"):
        of_rows = [{*row} if name == "topics" else {row} for row in table[name].dropna()]
        counted = Counter(str(value).lower() for values in of_rows for value in values)
        assert dict(shown[name].values) == counted and sum(counted.values()) > 0
        assert (shown[name].rows, shown[name].is_list) == (sum(map(bool, of_rows)), name == "topics")
        assert [rows for _, rows in shown[name].values] == sorted(counted.values(), reverse=True)
    refused, rejected = live.failures(view).causes
    assert (rejected.result_type, rejected.rows, rejected.keys) == ("rejected", 1, ("empty",))
    failed = table[table["result_type"] == "errored"]
    assert (refused.error_type, refused.rows) == ("billing_error", len(failed))
    assert refused.keys == tuple(failed["id"][:3])


def test_a_row_is_found_with_everything_that_was_asked_about_it(world: World) -> None:
    live = live_of(world.root.settings)
    done = world.table(classify(world, "any")).query("result_type == 'succeeded'")["id"].iloc[0]
    number = done.removeprefix("row-")
    assert [row.key for row in live.search("classify", done)[0]] == [done]
    assert {row.key for row in live.search("classify", "PARCEL 2")[0]} == {
        "row-2",
        *(f"row-2{n}" for n in range(4)),
    }
    assert live.search("classify", "' OR true --") == ([], None) == live.search("other", done)
    ((found,), _) = live.search("classify", done)
    row, _, problem = live.opened(found)
    assert problem is None
    assert row is not None and row.typed == ("mood", "urgent", "topics") and row.carried == ("text",)
    newest, first = live.versions("classify", "", done)
    assert newest.params is not None and first.params is not None
    assert newest.answers[-1].values["response_text"] == row.values["response_text"]
    assert "SYSTEM\nTell the mood, shortly." in prompt_text(newest.params)
    assert "SYSTEM\nTell the mood." in prompt_text(first.params) and f"parcel {number} <b>late" in prompt_text(
        first.params
    )
    assert [answer.batch is not None for answer in (*newest.answers, *first.answers)] == [True, True]
    (empty,) = live.versions("classify", "", "empty")
    assert empty.rejected is not None and "the text is empty" in empty.rejected and empty.answers == ()


def test_it_changes_nothing_and_waits_for_no_writer(world: World) -> None:
    ledger = Path(world.root.settings.root, "ledger.db")
    files = {path: path.stat().st_mtime_ns for path in Path(world.root.settings.root).rglob("*") if path.is_file()}
    before = hashlib.sha256(ledger.read_bytes()).hexdigest()
    with world.root.ledger.write():  # the only writer that SQLite allows
        live = live_of(world.root.settings)
        look = live.look()
        assert look.state is not None
        live.spend(look)
        live.versions("classify", "", "row-1")
    assert hashlib.sha256(ledger.read_bytes()).hexdigest() == before
    now = {path: path.stat().st_mtime_ns for path in Path(world.root.settings.root).rglob("*") if path.is_file()}
    assert {path for path in {*files, *now} if files.get(path) != now.get(path)} <= {
        ledger.with_name(f"ledger.db-{end}") for end in ("wal", "shm")
    }


def test_what_was_spent_follows_each_step_of_a_run(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also batches that are sent, follow-ups, and the late answers of a batch whose rows are complete."""
    for pause in ("_STATE_PAUSE", "_SPEND_PAUSE", "_PAUSE_FACTOR"):
        monkeypatch.setattr(f"batch_assets.dashboard.live.{pause}", 0.0)
    as_new(emulator)
    world = new_world(emulator, tmp_path)
    chained = world.pipeline(texts(2), params=short(), retry=TWICE)
    live = live_of(world.root.settings)

    def is_shown() -> bool:
        spend = live.spend(live.look())
        assert spend is not None
        return SpendTotal.of(spend.rows) == SpendTotal.of(SpendReader(world.root).read().rows)

    world.send(chained)
    assert is_shown(), "sent"
    for number in range(2):
        world.collect(chained)
        world.submit(chained, unattended=True)
        assert is_shown(), f"follow-up {number + 1} sent"
    world.finish(chained)
    assert is_shown(), "complete"
    world.build(chained, refresh=True)
    world.submit(chained)
    assert is_shown(), "refresh sent"
    world.finish(chained)
    late = rescued(world, name="late")
    assert is_shown(), "sent late"
    rescue(world, late)
    assert is_shown(), "rescued"
    emulator.settings(latency=0)
    emulator.end_batches()
    poll(world.root, now=True)
    collect_results(world.root, late.name)
    assert is_shown(), "paid twice"
    world.root.close()


def test_what_was_spent_is_asked_for_again_after_the_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although nothing else has changed by then: the page reads it only with a look that is new to it."""
    monkeypatch.setattr("batch_assets.dashboard.live._STATE_PAUSE", 0.0)
    monkeypatch.setattr("batch_assets.dashboard.live._PAUSE_FACTOR", 0.0)
    live = live_of(world.root.settings)
    live.spend(live.look())
    with world.root.ledger.write() as tx:
        tx.record(EntityKind.BATCH, "msgbatch_x", None, "collected", "a test")
    look = live.look()
    live.spend(look)
    assert live.look().number == look.number, "it is too early"
    monkeypatch.setattr(live, "_spend_again_at", 0.0)
    again = live.look()
    assert again.number == look.number + 1
    live.spend(again)
    assert live.look().number == again.number


def test_a_look_needs_no_more_statements_for_more_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(tmp_path / "root"))
    seen = {}
    for partitions in (60, 300):
        fill(f"of{partitions}", complete=partitions // 2, running=partitions // 2)
        with counting() as statements:
            state = live_of(Settings.from_env()).look().state
        seen[partitions] = len(statements)
    assert seen[60] == seen[300] <= 40
    assert state is not None
    basis = {each.name: each.left.basis for each in state.pipelines if each.left is not None}
    assert basis == {"of60": 30, "of300": 50}, "however many batches of other pipelines are newer"
    ended = {line["pipeline"]: line["ended batches"] for line in charts.latency_lines(state.batches)}
    assert ended == {"of60": "30", "of300": "50"}
    sent = [each.batch.created_at or 0.0 for each in state.batches]
    assert sent == sorted(sent, reverse=True)


def test_a_ledger_of_another_version_is_not_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(tmp_path / "root"))
    assert "there is no ledger yet" in (live_of(Settings.from_env()).look().problem or "")
    assert not (tmp_path / "root").exists()
    fill("few", complete=1)
    for version, advice in (
        ("0025", "The next run with this version upgrades it"),
        ("9999", "Install that version"),
    ):
        set_version(tmp_path / "root", version)
        look = live_of(Settings.from_env()).look()
        assert look.has_ledger and advice in (look.problem or "")
        assert version_in(tmp_path / "root") == version


def set_version(root: Path, version: str) -> None:
    with sqlite3.connect(root / "ledger.db") as ledger:
        ledger.execute("update ledger_version set version_num = ?", [version])
    ledger.close()


def version_in(root: Path) -> str:
    with sqlite3.connect(root / "ledger.db") as ledger:
        ((version,),) = ledger.execute("select version_num from ledger_version")
    ledger.close()
    return str(version)


def answer_of(url: str, **headers: str) -> tuple[int, str]:
    """Return the status of an answer, and where it came from."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor())
    try:
        with opener.open(urllib.request.Request(url, headers=headers)) as response:
            return int(response.status), str(response.url)
    except urllib.error.HTTPError as error:
        return error.code, url


def test_other_addresses_need_a_token_and_other_pages_get_nothing(tmp_path: Path) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1")] == [
        *[True] * 3,
        *[False] * 2,
    ]
    with DashboardServer(tmp_path / "root", "--host", "0.0.0.0") as server:
        address, _, token = server.url.partition("?access_token=")
        assert len(token) >= 32
        assert answer_of(f"{address}api/status")[0] == 401
        assert "/auth/login" in answer_of(f"{address}?access_token=guess")[1]
        assert "/auth/login" not in answer_of(server.url)[1]
        assert answer_of(f"{address}health") == (200, f"{address}health")
        assert answer_of(f"{address}health", Origin="https://example.com")[0] == 403
    assert token not in server.output


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['marimo'] = None\nfrom importlib import util\nspec = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'marimo' else spec(name, *more)\n"
        "from batch_assets.cli import main; main(['dashboard'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "not installed (marimo): pip install 'batch-assets[dashboard]'" in done.stderr


def test_the_page_in_a_browser(emulator: Emulator, tmp_path: Path) -> None:
    """One page from an empty root to the end, which is never loaded again."""
    if find_chromium() is None:
        pytest.skip("NO BROWSER: install chromium to run the test of the dashboard's page")
    pytest.importorskip("playwright.sync_api", reason="NO BROWSER: playwright is not installed")
    with DashboardServer(tmp_path / "root") as server, open_page(_PATIENCE) as page:
        walk_through(page, server.url, emulator, tmp_path)
    assert "Traceback" not in server.output, server.output


def walk_through(page: Any, url: str, emulator: Emulator, folder: Path) -> None:
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if not request.url.startswith(url) else None)
    page.goto(url)
    page.get_by_text("there is no ledger yet").wait_for()

    world, pipelines = new_world(emulator, folder), page.get_by_role("region", name="Pipelines")
    try:
        run_twice(world)
        pipelines.get_by_text("25 of 25, 100 %").wait_for()
        for role, name in (("button", "Look again now"), ("combobox", "Look again every")):
            page.get_by_role(role, name=name, exact=True).wait_for()
        cost = world.table(classify(world, "any"))["cost_usd"].sum()
        page.get_by_role("region", name="Spent by pipeline").get_by_text("classify").wait_for()
        assert cost > 0
        page.get_by_role("region", name="Budgets").get_by_text("$5.00 per day").wait_for()
        page.get_by_role("region", name="Failed rows").get_by_text("the text is empty").wait_for()
        page.get_by_role("region", name="From submission to end").get_by_text("classify").wait_for()
        page.locator(".vega-embed").nth(3).wait_for()

        emulator.settings(latency=3600.0)
        other = world.pipeline({"late": "a text"}, name="other")
        world.send(other)
        pipelines.get_by_text("at the latest").wait_for()
        emulator.settings(latency=0.0)
        emulator.end_batches()
        world.finish(other)
        pipelines.get_by_text("1 of 1, 100 %").wait_for()

        page.locator("option", has_text="other").first.wait_for(state="attached")  # a new pipeline: new choices
        done = world.table(classify(world, "any")).query("result_type == 'succeeded'")["id"].iloc[0]
        search_for_a_row(page, done)
        world.run(world.pipeline({"late": "a text", "later": "another text"}, name="other"))
        pipelines.get_by_text("2 of 2, 100 %").wait_for()
        assert page.get_by_label("Search").first.input_value().startswith("parcel "), "a look keeps what was typed"
        world.path("other", "results", "results.parquet").write_bytes(b"no table")
        counts = '{"succeeded": 1, "errored": 1}'
        world.query(
            "update submission set counts = :counts, joined_at = joined_at + 1 where pipeline = 'other'",
            counts=counts,
        )
        page.get_by_text("cannot be read").first.wait_for()
        set_version(folder / "root", "0025")
        page.set_viewport_size({"width": 500, "height": 900})
        box = page.get_by_text("has the tables of an earlier version")
        box.wait_for()
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), "a long text is wrapped"
        assert box.evaluate("box => box.getBoundingClientRect().right <= innerWidth"), "all of it is visible"
        set_version(folder / "root", HEAD)
        pipelines.get_by_text("2 of 2, 100 %").wait_for()
    finally:
        world.root.close()
    assert elsewhere == []


def search_for_a_row(page: Any, key: str) -> None:
    """Find a row with the keyboard by its text. Markup in texts is shown as it is."""
    text = f"parcel {key.removeprefix('row-')} <b>late</b>"
    page.get_by_label("Search").first.focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.get_by_text(f"classify · {key} · succeeded").wait_for()
    page.locator("pre", has_text="Tell the mood, shortly.").first.wait_for()
    page.locator("pre", has_text=text).first.wait_for()
    page.locator("pre", has_text='{"mood":').first.wait_for()
    history = page.get_by_role("region", name="History of this row")
    history.get_by_role("row").nth(2).wait_for()
    page.get_by_text("+Tell the mood, shortly.").wait_for()
