"""Notices about pipelines, as the sensor sends them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from batch_assets import build_message_batch_sensor
from batch_assets.core.errors import ConfigError
from batch_assets.core.open_root import open_root
from batch_assets.emulator import Emulator
from tests.receivers import Receiver, receiver

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
TOKEN = "xoxb-RECOGNIZE-ME-4711"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as running:
        monkeypatch.setenv("HOOK_URL", running.url)
        monkeypatch.setenv("HOOK_SECRET", "any")
        yield running


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as running:
        monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
        yield running


def to_slack(slack: Receiver) -> dict[str, Any]:
    return {"slack": {"token_env": "SLACK_BOT_TOKEN", "channel": "#data", "base_url": f"{slack.url}/api"}}


WEBHOOK = {"webhook": {"url_env": "HOOK_URL", "secret_env": "HOOK_SECRET"}}


class Location:
    """A code location that ticks on demand."""

    def __init__(self, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> None:
        self._assets, self._instance = assets, instance
        sensor = build_message_batch_sensor()
        self._definitions = dg.Definitions(assets=assets, sensors=[sensor])

    def materialize(self, *stages: str) -> dg.ExecuteInProcessResult:
        selection = [asset.key for asset in self._assets if asset.key.path[-1] in stages]
        return dg.materialize(self._assets, selection=selection, instance=self._instance)

    def tick(self) -> str:
        """The message of the sensor's tick."""
        repository = self._definitions.get_repository_def()
        with dg.build_sensor_context(instance=self._instance, repository_def=repository) as context:
            data = build_message_batch_sensor().evaluate_tick(context)
        assert not data.run_requests
        return data.skip_message or ""


def ledger(statement: str) -> list[Any]:
    with open_root() as root, root.ledger.write() as tx:
        result = tx.execute(text(statement))
        return list(result) if result.returns_rows else []


def test_the_sensor_notifies_a_webhook_and_slack_when_results_are_complete(
    make_assets: MakeAssets,
    instance: dg.DagsterInstance,
    emulator: Emulator,
    hook: Receiver,
    slack: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_UI_URL", "https://dagster.example.com")
    location = Location(make_assets(notify=[WEBHOOK, to_slack(slack)], max_failed=0.5), instance)
    location.materialize("requests", "batches", "results")
    assert "1 of 1 batch in progress" in location.tick()
    assert hook.received == slack.received == []
    emulator.end_batches()
    assert location.materialize("results").get_asset_materialization_events()
    slack.answers = [(429, b'{"ok": false, "error": "ratelimited"}')]
    skip_message = location.tick()
    waits = "greetings: the notice `complete` to slack #data (SLACK_BOT_TOKEN) waits: HTTP 429 ratelimited"
    assert skip_message == f"{waits}, next try in 60 s"
    ledger("update notice set next_try_at = 0 where state = 'waiting'")
    assert location.tick() == "No batch is open."
    assert location.tick() == "No batch is open."
    (notice,) = [message.json for message in hook.received]
    assert (notice["event"], notice["counts"]) == ("complete", {"succeeded": 4, "rejected": 1})
    assert notice["link"] == "https://dagster.example.com/assets/greetings/results"
    assert [message.path for message in slack.received] == ["/api/chat.postMessage"] * 2
    assert slack.received[1].headers["Authorization"] == f"Bearer {TOKEN}"
    posted = slack.received[1].json
    assert (posted["channel"], posted["text"]) == ("#data", notice["message"])
    assert notice["message"].startswith("greetings: results are complete\n5 rows: 4 succeeded, 1 rejected; cost ")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, b'{"ok": false, "error": "channel_not_found"}'), "was refused: HTTP 200 channel_not_found"),
        ((200, b'{"ok": false, "error": "internal_error"}'), "waits: HTTP 200 internal_error, next try in 60 s"),
        ((503, b"{}"), "waits: HTTP 503, not a reply from Slack"),
        ((502, b"<html>bad gateway</html>"), "waits: HTTP 502, not a reply from Slack"),
        ((200, b"<html>log in first</html>"), "waits: HTTP 200, not a reply from Slack"),
        ((0, b""), "waits: RemoteDisconnected"),
    ],
)
def test_a_notice_that_slack_refuses_is_reported(
    make_assets: MakeAssets,
    instance: dg.DagsterInstance,
    emulator: Emulator,
    slack: Receiver,
    answer: tuple[int, bytes],
    problem: str,
) -> None:
    location = Location(make_assets(notify=[to_slack(slack)], rows=1), instance)
    location.materialize("requests", "batches")
    emulator.end_batches()
    location.materialize("results")
    slack.answers = [answer]
    message = location.tick()
    assert "the notice `failed` to slack #data" in message  # one of two rows was rejected
    assert problem in message
    assert "RECOGNIZE" not in message
    assert len(slack.received) == 1


def test_a_notice_waits_while_slack_refuses_the_token(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, slack: Receiver
) -> None:
    location = Location(make_assets(notify=[to_slack(slack)], rows=1), instance)
    location.materialize("requests", "batches")
    emulator.end_batches()
    location.materialize("results")
    for code in ("invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive"):
        slack.answers = [(200, b'{"ok": false, "error": "%s"}' % code.encode())]
        assert f"waits: HTTP 200 {code}, next try in" in location.tick()
        ledger("update notice set next_try_at = 0 where state = 'waiting'")
    assert location.tick() == "No batch is open."
    assert len(slack.received) == 6


def test_a_failure_of_notices_does_not_stop_the_tick(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, hook: Receiver
) -> None:
    location = Location(make_assets(notify=[WEBHOOK]), instance)
    location.materialize("requests", "batches", "results")
    ledger("drop table notice")
    skip_message = location.tick()
    assert "1 of 1 batch in progress" in skip_message
    assert "notices could not be sent: DamagedFileError: the ledger " in skip_message


def test_without_the_package_slack_is_refused_at_load(
    make_assets: MakeAssets, slack: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dagster_slack", None)  # how Python sees a package that is not installed
    with pytest.raises(ConfigError, match=r"notify\.0\.slack: .*pip install 'batch-assets\[slack\]'"):
        make_assets(notify=[to_slack(slack)])


def test_a_component_has_the_block(tmp_path_factory: pytest.TempPathFactory) -> None:
    from batch_assets import MessageBatchComponent

    component = MessageBatchComponent.resolve_from_yaml(
        """
name: greetings
dataset: {path: greetings.csv}
params: {model: claude-haiku-5-5, max_tokens: 5, messages: [{role: user, content: "{{ text }}"}]}
notify:
  - webhook: {url_env: HOOK_URL, secret_env: HOOK_SECRET}
  - slack: {token_env: SLACK_BOT_TOKEN, channel: "#data"}
    events: [failed, deadline]
  - email: {to: [ada@example.com], sender: us@example.com, url_env: SMTP_URL}
"""
    )
    assert [entry.target for entry in component.notify] == [
        "webhook HOOK_URL",
        "slack #data (SLACK_BOT_TOKEN)",
        "email ada@example.com",
    ]
    assert [len(entry.events) for entry in component.notify] == [5, 2, 5]


def test_a_batch_near_its_end_is_reported_without_an_api(
    make_assets: MakeAssets,
    instance: dg.DagsterInstance,
    emulator: Emulator,
    hook: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = Location(make_assets(notify=[WEBHOOK]), instance)
    location.materialize("requests", "batches")
    ledger(f"update batch set expires_at = {time.time() + 3600}, next_poll_at = 0")
    monkeypatch.delenv("BATCH_ASSETS_EMULATOR")
    assert "ANTHROPIC_API_KEY" in location.tick()
    assert [message.json["event"] for message in hook.received] == ["deadline"]
