"""The table of what was spent, compared with the report of costs of a real server, day by day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest

from batch_assets.core.api.cost_report import MOST_DAYS, PAGE, CostReport
from batch_assets.core.api.errors import RefusedError, UnknownOutcomeError
from batch_assets.core.client_settings import ADMIN_KEY
from batch_assets.core.errors import SettingsError
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Overrides, Settings
from batch_assets.core.spend.bill import BilledDay, Verdict, compare, live_text
from batch_assets.core.spend.build import build_spend
from batch_assets.core.spend.spend_table import BATCH_TIER, LIVE_TIER
from batch_assets.emulator import Emulator

from ..support import World, environment, params, texts

KEYS = ("equal", "elsewhere", "unread", "other-root", "midnight", "rescued", "nothing")
ADMIN = "key-of-an-admin"
COST = {"method": "GET", "path": "/v1/organizations/analytics/cost"}
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def organization(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator with a workspace for each test."""
    workspaces = {f"key-{name}": name for name in KEYS}
    keys = {"workspaces": workspaces, "admin_keys": [ADMIN], "keys": ["another"]}
    with Emulator(state=tmp_path_factory.mktemp("state"), **keys) as running:
        yield running
        assert running.errors() == ""


@pytest.fixture
def root_of(
    organization: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """A function that opens a root with the key of a workspace."""
    monkeypatch.setenv(ADMIN_KEY, ADMIN)
    made: list[World] = []

    def make(workspace: str, folder: str = "output") -> World:
        env = environment(organization.url, tmp_path / folder, BATCH_ASSETS_TRANSFERS="1")
        del env["BATCH_ASSETS_EMULATOR"]
        overrides = Overrides(api_key=f"key-{workspace}", base_url=organization.url)
        made.append(World(organization, tmp_path, open_root(Settings.from_env(env, overrides=overrides))))
        return made[-1]

    yield make
    organization.settings(latency=0.0, expiry=86_400)
    organization.clock(reset=True)
    organization.reset_faults()
    for world in made:
        world.root.close()


def today() -> date:
    return datetime.now(UTC).date()


def reconcile(world: World, workspace: str, last: date | None = None, limit: int = PAGE) -> list[BilledDay]:
    """The days of a week that have amounts."""
    last = last or today()
    report = CostReport(world.root.settings)
    charges = list(report.charges(last - 7 * DAY, last, [f"wrkspc_{workspace}"], limit=limit))
    report.close()
    days = compare(build_spend(world.root).rows, charges, last - 6 * DAY, last)
    assert [day.day for day in days] == [last - at * DAY for at in range(6, -1, -1)]
    return [day for day in days if day.billed or day.spent or day.unknown_requests]


def send_elsewhere(world: World, workspace: str, model: str) -> None:
    """Make a batch that no root knows."""
    asked: Any = {"custom_id": "x", "params": params("Hello", model=model)}
    with anthropic.Anthropic(api_key=f"key-{workspace}", base_url=world.emulator.url) as client:
        client.messages.batches.create(requests=[asked])


def test_what_was_billed_is_what_was_spent(root_of: Callable[..., World]) -> None:
    world = root_of("equal")
    world.run(world.pipeline(texts(3)))
    world.run(world.pipeline(name="dearer", params=params(model="claude-opus-4-5")))
    (day,) = reconcile(world, "equal", limit=1)  # a page for each model
    assert (day.verdict, day.why, day.difference) == (Verdict.EQUAL, "", 0)
    assert day.billed == day.spent and set(day.spent) == {"claude-haiku-5-5", "claude-opus-4-5"}


def test_a_batch_made_elsewhere_is_named_by_its_model(root_of: Callable[..., World]) -> None:
    world = root_of("elsewhere")
    world.run(world.pipeline(texts(2)))
    send_elsewhere(world, "elsewhere", "claude-opus-5-5")
    (day,) = reconcile(world, "elsewhere")
    assert day.verdict is Verdict.MORE and "more: batches of other roots or programs" in day.why
    assert list(day.by_model) == ["claude-opus-5-5"] and day.by_model["claude-opus-5-5"] == day.difference > 0


def test_answers_that_were_never_collected(root_of: Callable[..., World]) -> None:
    world = root_of("unread")
    world.send(world.pipeline(texts(3)))
    (day,) = reconcile(world, "unread")
    assert (day.verdict, day.unknown_requests, day.spent.total()) == (Verdict.UNKNOWN, 3, 0)
    assert day.unknown is not None and 0 < day.difference <= day.unknown
    assert "3 requests whose answers are not stored may cost at most $" in day.why
    send_elsewhere(world, "unread", "claude-fable-5-1")
    (day,) = reconcile(world, "unread")
    assert day.difference > (day.unknown or 0) and day.verdict is Verdict.MORE, "the range does not cover this"


def test_another_root_in_the_same_workspace(root_of: Callable[..., World]) -> None:
    world, other = root_of("other-root"), root_of("other-root", "another")
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    other.run(pipeline)
    (day,) = reconcile(world, "other-root")
    assert day.verdict is Verdict.MORE and day.billed.total() == 2 * day.spent.total()
    (day,) = reconcile(world, "nothing")
    assert day.verdict is Verdict.LESS and "batches of another workspace" in day.why


def test_a_batch_over_midnight(root_of: Callable[..., World]) -> None:
    world = root_of("midnight")
    world.emulator.settings(latency=2 * 86_400, expiry=4 * 86_400)
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.emulator.clock(advance=2 * 86_400 + 1)
    world.finish(pipeline)
    one, two = reconcile(world, "midnight", today() + 3 * DAY)
    assert (one.verdict, two.verdict) == (Verdict.MIDNIGHT, Verdict.MIDNIGHT)
    assert one.difference == -two.difference > 0 and "a batch ran over midnight" in two.why
    (last,) = reconcile(world, "midnight", one.day)
    assert last.verdict is Verdict.MORE, "the next day is not known"


def test_live_calls_are_no_batches(root_of: Callable[..., World]) -> None:
    world = root_of("rescued")
    pipeline = world.pipeline(texts(2), deadline="6h", rescue="live")
    world.send_late(pipeline)
    assert world.submit(pipeline, unattended=True).live_calls.answered == 2
    world.emulator.end_batches()
    world.finish(pipeline)
    rows = build_spend(world.root).rows
    batch, live = (sum(row.cost for row in rows if row.tier == tier) for tier in (BATCH_TIER, LIVE_TIER))
    days = reconcile(world, "rescued")
    assert [day.verdict for day in days] == [Verdict.EQUAL] * len(days) and live > batch > 0
    assert sum(day.billed.total() for day in days) == batch
    assert live_text(rows, today() - DAY, today() + DAY).startswith("not compared: 2 live calls of rescue, ")
    assert live_text(rows, today() - 9 * DAY, today() - 8 * DAY) == ""


@pytest.mark.parametrize(
    "body",
    [
        {"data": [], "has_more": True, "next_page": None},
        {"data": [{"starting_at": "2026-11-20T00:00:00Z"}], "has_more": False},
        {"data": [], "has_more": True, "next_page": "page_1"},
    ],
    ids=["no cursor", "no amount", "the same cursor again"],
)
def test_a_report_that_is_not_whole_is_none(root_of: Callable[..., World], body: dict[str, Any]) -> None:
    world = root_of("nothing")
    world.emulator.faults([{"match": COST, "action": {"status": 200, "body": body}}])
    with pytest.raises(UnknownOutcomeError, match="cost: "):
        reconcile(world, "nothing")


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("key-equal", 403)])
def test_another_key_is_refused(
    root_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch, key: str, status: int
) -> None:
    world = root_of("nothing")
    monkeypatch.setenv(ADMIN_KEY, key)
    with pytest.raises(RefusedError) as refused:
        reconcile(world, "nothing")
    assert refused.value.status == status and key not in str(refused.value)


def test_without_an_admin_key_nothing_is_asked(
    root_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = root_of("nothing")
    monkeypatch.delenv(ADMIN_KEY)
    with pytest.raises(SettingsError, match="set ANTHROPIC_ADMIN_KEY"):
        reconcile(world, "nothing")


def test_a_year_is_asked_in_parts(root_of: Callable[..., World]) -> None:
    world = root_of("nothing")
    world.forget_calls()
    report = CostReport(world.root.settings)
    assert list(report.charges(today() - 364 * DAY, today(), ["wrkspc_nothing"])) == []
    report.close()
    assert world.calls() == {f"GET {COST['path']}": -(-365 // MOST_DAYS)}
