"""The endpoint of costs, through the official SDK: pages, groups, days and keys."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest

from batch_assets.emulator import Emulator

from .conftest import MODEL, requests

KEYS = {"key-north": "north", "key-south": "south"}
CENT = 10**10
DAY = 86_400.0


@pytest.fixture(scope="module")
def organization(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    state: Path = tmp_path_factory.mktemp("emulator")
    with Emulator(state=state, keys=["key-plain"], workspaces=KEYS, admin_keys=["key-admin"]) as running:
        yield running
        assert running.errors() == ""


def client(emulator: Emulator, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=key, base_url=emulator.url, max_retries=0)


def report(emulator: Emulator, key: str = "key-admin", **more: Any) -> list[Any]:
    now = datetime.now(UTC)
    asked: dict[str, Any] = {
        "starting_at": now - timedelta(days=20),
        "ending_at": now + timedelta(days=11),
        "time_bucket_width": "1d",
        "order_by": "time",
        "order": "asc",
        "group_by": ["model", "workspace_id"],
        "products": ["message_batches_api"],
    }
    with client(emulator, key) as made:
        return list(made.beta.organization.analytics.cost.list(**asked | more))


def test_the_report_is_the_bill_by_day_model_and_workspace(organization: Emulator) -> None:
    for key, model in (("key-north", MODEL), ("key-south", MODEL), ("key-south", "claude-opus-5-5")):
        with client(organization, key) as made:
            made.messages.batches.create(requests=requests(3, model=model))
    rows = report(organization, limit=1)  # three pages
    billed = {(batch["workspace"]): 0 for batch in organization.bill()["batches"]}
    for row in rows:
        assert row.cost.currency == "USD" and row.cost.requests == 3
        assert row.ending_at - row.starting_at == timedelta(days=1)
        billed[row.group.workspace_id.removeprefix("wrkspc_")] += int(Decimal(row.cost.amount) * CENT)
    assert [row.group.model for row in rows].count("claude-opus-5-5") == 1 and len(rows) == 3
    assert billed == {name: organization.bill(name)["picodollars"] for name in KEYS.values()}, (
        "in fractional cents, to the picodollar"
    )
    (north,) = report(organization, workspace_ids=["wrkspc_north"], group_by=["model"])
    assert north.group.workspace_id is None and Decimal(north.cost.amount) * CENT == billed["north"]
    with client(organization, "key-north") as made:
        made.messages.create(model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "Hello"}])
    (live,) = report(organization, products=["messages_api"])
    (call,) = organization.live_calls()
    assert int(Decimal(live.cost.amount) * CENT) == call["picodollars"] > 0
    assert [row.cost.amount for row in report(organization)] == [row.cost.amount for row in rows]
    assert len(report(organization, products=["message_batches_api", "messages_api"], group_by=[])) == 1


def test_a_batch_over_midnight_counts_on_two_days(organization: Emulator) -> None:
    organization.settings(latency=2 * DAY, expiry=4 * DAY)
    before = sum(row.cost.requests for row in report(organization))
    with client(organization, "key-plain") as made:
        batch = made.messages.batches.create(requests=requests(2))
    organization.clock(advance=2 * DAY + 1)
    rows = [row for row in report(organization) if row.group.workspace_id == "wrkspc_default"]
    assert [row.cost.requests for row in rows] == [1, 1]
    assert {row.starting_at.date() for row in rows} == {
        batch.created_at.date() + timedelta(days=days) for days in (1, 2)
    }
    assert before + 2 == sum(row.cost.requests for row in report(organization))


@pytest.mark.parametrize(
    ("key", "status"), [("key-north", 403), ("key-plain", 403), ("no-key", 401), ("key-admin", None)]
)
def test_only_an_admin_key_reads_costs_and_it_creates_nothing(
    organization: Emulator, key: str, status: int | None
) -> None:
    if status is None:
        assert report(organization) is not None
        with client(organization, key) as made, pytest.raises(anthropic.PermissionDeniedError):
            made.messages.batches.list()
        return
    with pytest.raises(anthropic.APIStatusError) as refused:
        report(organization, key)
    assert refused.value.status_code == status


def test_what_the_api_refuses_is_refused(organization: Emulator) -> None:
    now = datetime.now(UTC)
    for wrong in (
        {"starting_at": now - timedelta(days=32), "ending_at": now},
        {"ending_at": anthropic.omit},
        {"page": "no cursor"},
        {"betas": ["another"], "extra_headers": {"anthropic-beta": "another"}},
        {"models": [MODEL]},
    ):
        with pytest.raises(anthropic.BadRequestError):
            report(organization, **wrong)
