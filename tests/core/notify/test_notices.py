"""Notifications about pipelines: what they contain, that they arrive, and that they are sent once."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.errors import ConfigError, SettingsError
from batch_assets.core.notify.delivery import NoticeNotSentError, keep_credentials
from batch_assets.core.notify.notices import send_notices
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.settings import Settings
from batch_assets.core.store.result_table import SUBMISSION
from tests.receivers import Receiver

from ..noticing import EMAIL, PATH, SECRET, WEBHOOK, announce, complete, noticed, now_due, states, tick
from ..support import World, make_pipeline, texts, write_rows

DOCS = Path(__file__).parents[3] / "docs" / "notifications.md"
GIVEN = EMAIL["email"]
NOT_A_NAME = {"url_env": "https://x.test/y", "secret_env": "S"}


def verify() -> Callable[..., bool]:
    """The function that the documentation shows for checking a signature."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    is_genuine: Callable[..., bool] = names["is_genuine"]
    return is_genuine


def test_a_webhook_gets_one_message_and_can_verify_it(world: World, hook: Receiver) -> None:
    world.reopened(BATCH_ASSETS_UI_URL="https://dagster.example.com/")
    pipeline = world.pipeline({**texts(3), "empty": ""}, notify=[WEBHOOK], max_failed=0.5)
    world.send(pipeline, "2026-11-20")
    world.finish(pipeline, "2026-11-20")
    assert tick(world, pipeline) == []
    assert hook.received == []  # not before the materialization is in Dagster
    announce(world, pipeline, "2026-11-20")
    assert tick(world, pipeline) == []
    assert tick(world, pipeline) == []
    (message,) = hook.received
    content = message.json
    link = "https://dagster.example.com/assets/asked/results?view=partitions&partition=2026-11-20"
    table = world.table(pipeline)
    assert content["cost_usd"] == pytest.approx(table["cost_usd"].sum())
    assert content["cost_usd"] > 0
    assert content | {"cost_usd": 0, "id": "", "submission": "", "message": "", "sent_at": ""} == {
        "id": "",
        "event": "complete",
        "pipeline": "asked",
        "partition": "2026-11-20",
        "submission": "",
        "rows": 4,
        "counts": {"succeeded": 3, "rejected": 1},
        "cost_usd": 0,
        "cost_known": True,
        "batches": [],
        "link": link,
        "message": "",
        "sent_at": "",
    }
    first, second, third = content["message"].splitlines()
    assert first == "asked [2026-11-20]: results are complete"
    assert re.fullmatch(
        r"4 rows: 3 succeeded, 1 rejected; cost less than \$0\.0001 \(by the price list; .*\)", second
    )
    assert third == link
    assert re.fullmatch(r"[0-9a-f]{32}", content["id"])
    assert message.path == PATH
    assert message.headers["Content-Type"] == "application/json"
    genuine, signed = verify(), message.headers["X-Batch-Assets-Signature"]
    assert genuine(SECRET, signed, message.body)
    assert not genuine("another", signed, message.body)
    assert not genuine(SECRET, signed, message.body + b" ")
    assert not genuine(SECRET, signed, message.body, tolerance=-1)


def test_too_many_failed_rows_send_failed_in_place_of_complete(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline({**texts(3), "empty": ""}, notify=[WEBHOOK])
    complete(world, pipeline)
    tick(world, pipeline)
    (message,) = hook.received
    assert message.json["event"] == "failed"
    assert message.json["link"] is None
    assert message.json["message"].startswith(
        "asked: 25% of the rows have no answer, and max_failed is 1%\n4 rows: 3 succeeded, 1 rejected; cost "
    )


def test_only_the_chosen_events_are_sent(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK | {"events": ["failed", "deadline"]}])
    complete(world, pipeline)
    tick(world, pipeline)
    assert hook.received == []
    assert states(world) == []


def test_results_that_were_complete_before_are_not_announced(world: World, hook: Receiver) -> None:
    complete(world, world.pipeline(texts(1)))
    pipeline = world.pipeline(notify=[WEBHOOK])
    assert tick(world, pipeline) == []
    assert tick(world, pipeline) == []
    assert hook.received == []
    complete(world, world.pipeline(texts(2), notify=[WEBHOOK]))
    tick(world, pipeline)
    assert [message.json["rows"] for message in hook.received] == [2]


def test_a_submission_replaced_before_the_next_tick_is_announced_if_it_had_finished(
    world: World, hook: Receiver
) -> None:
    pipeline = world.pipeline({**texts(3), "empty": ""}, notify=[WEBHOOK])
    assert tick(world, pipeline) == []
    complete(world, pipeline)
    world.build(pipeline, retry_failed=True)
    assert tick(world, pipeline) == []
    complete(world, pipeline)  # replaces a submission that never finished
    for _ in range(2):
        assert tick(world, pipeline) == []
    first, _, last = [row.id for row in world.query("select id from submission order by seq")]
    sent = [(message.json["submission"], message.json["event"]) for message in hook.received]
    assert sent == [(first, "failed"), (last, "failed")]


def test_a_replaced_submission_that_dagster_never_materialized_is_not_announced(
    world: World, hook: Receiver
) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    tick(world, pipeline)
    world.send(pipeline)
    world.finish(pipeline)
    world.build(pipeline)
    assert tick(world, pipeline) == []
    assert hook.received == []
    assert send_notices(world.root, noticed(pipeline), announced_only=False) == []  # as `batch-assets run` does
    assert [message.json["event"] for message in hook.received] == ["complete"]


@pytest.mark.parametrize(("before", "after", "event"), [(0.01, 0.5, "failed"), (0.5, 0.01, "complete")])
def test_a_change_of_max_failed_sends_no_second_message(
    world: World, hook: Receiver, monkeypatch: pytest.MonkeyPatch, before: float, after: float, event: str
) -> None:
    monkeypatch.setenv("OTHER_URL", f"{hook.url}/other")
    to_other = {"webhook": {"url_env": "OTHER_URL", "secret_env": "HOOK_SECRET"}}
    other = "complete" if event == "failed" else "failed"
    notify = [WEBHOOK, to_other | {"events": [other]}]
    complete(world, world.pipeline({**texts(3), "empty": ""}, notify=notify, max_failed=before))
    for max_failed in (before, after):
        assert tick(world, world.pipeline(notify=notify, max_failed=max_failed)) == []
    assert [(message.path, message.json["event"]) for message in hook.received] == [(PATH, event)]
    pipeline = world.pipeline(texts(2), notify=notify, max_failed=after)
    complete(world, pipeline)
    tick(world, pipeline)
    assert hook.received[1].json["event"] == "complete"  # the new max_failed applies to the next submission


def test_a_removed_target_gets_no_more_messages(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(503, b"")]
    tick(world, pipeline)
    tick(world, world.pipeline())
    assert states(world) == ["dropped"]
    now_due(world)
    assert tick(world, pipeline) == []  # the target is back, but only for what happens from now on
    assert len(hook.received) == 1


def test_a_message_that_does_not_arrive_is_sent_again_at_growing_intervals(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(503, b""), (0, b""), (429, b"")]
    problems = [tick(world, pipeline)]
    assert tick(world, pipeline) == problems[0]
    assert len(hook.received) == 1  # the next try is not due yet
    for _ in range(2):
        now_due(world)
        problems.append(tick(world, pipeline))
    prefix = "asked: the notice `complete` to webhook HOOK_URL waits: "
    assert [text for (text,) in problems][::2] == [
        f"{prefix}HTTP 503, next try in 60 s",
        f"{prefix}HTTP 429, next try in 4 min",
    ]
    assert problems[1][0].endswith("next try in 2 min")
    now_due(world)
    assert tick(world, pipeline) == []
    now_due(world)
    tick(world, pipeline)
    assert len(hook.received) == 4
    assert len({message.json["id"] for message in hook.received}) == 1
    assert all(verify()(SECRET, m.headers["X-Batch-Assets-Signature"], m.body) for m in hook.received)
    assert states(world) == ["sent"]


def test_the_interval_grows_up_to_a_day_and_the_tries_end_after_a_week(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.usual = (500, b"")
    tick(world, pipeline)
    world.query("update notice set attempts = 5000, next_try_at = 0")
    assert tick(world, pipeline)[0].endswith("next try in 24 h 0 min")
    world.query("update notice set created_at = created_at - 7 * 86400 - 60, next_try_at = 0")
    assert tick(world, pipeline)[0].endswith("was given up after 5,002 tries: HTTP 500")
    world.query("update notice set next_try_at = 0")
    assert tick(world, pipeline) == []
    assert states(world) == ["given_up"]
    assert len(hook.received) == 3


@pytest.mark.parametrize("status", [400, 410, 302])
def test_a_refused_message_is_reported_and_not_sent_again(world: World, hook: Receiver, status: int) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(status, b"")]
    (problem,) = tick(world, pipeline)
    assert f"to webhook HOOK_URL was refused: HTTP {status}" in problem
    now_due(world)
    assert tick(world, pipeline) == [problem]
    world.query("update notice set next_try_at = next_try_at - 86400 - 60")
    assert tick(world, pipeline) == []
    assert [message.path for message in hook.received] == [PATH]


def test_a_message_waits_while_its_secret_is_refused(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(401, b"")]
    assert tick(world, pipeline) == [
        "asked: the notice `complete` to webhook HOOK_URL waits: HTTP 401, next try in 60 s"
    ]
    now_due(world)
    assert tick(world, pipeline) == []
    assert states(world) == ["sent"]


def test_a_target_that_fails_does_not_delay_another(
    world: World, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWAY_URL", "http://127.0.0.1:9/hook")
    away = {"webhook": {"url_env": "AWAY_URL", "secret_env": "HOOK_SECRET"}}
    unset = {"webhook": {"url_env": "UNSET_URL", "secret_env": "HOOK_SECRET"}}
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-api")
    monkeypatch.setenv("COPIED_KEY", "sk-of-the-api")
    copied = {"webhook": {"url_env": "AWAY_URL_TOO", "secret_env": "COPIED_KEY"}}
    monkeypatch.setenv("AWAY_URL_TOO", f"{hook.url}/other")
    pipeline = world.pipeline(texts(1), notify=[away, unset, copied, WEBHOOK])
    complete(world, pipeline)
    problems = "\n".join(tick(world, pipeline))
    assert re.search("to webhook AWAY_URL waits: .*refused", problems)
    assert "to webhook UNSET_URL waits: the environment variable UNSET_URL is not set" in problems
    assert "to webhook AWAY_URL_TOO waits: the environment variable COPIED_KEY holds a key of the API" in problems
    assert len(hook.received) == 1


def test_the_key_of_a_resource_goes_to_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "sk-of-a-resource")
    config = NotifyConfig.model_validate(WEBHOOK)
    keep_credentials(config, None)
    with pytest.raises(NoticeNotSentError, match="HOOK_SECRET holds a key of the API"):
        keep_credentials(config, "sk-of-a-resource")


def test_an_unknown_cost_is_reported_as_unknown(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    (path,) = world.path("asked", "results").glob("*.parquet")
    table = pq.read_table(path)
    position = table.schema.get_field_index("cost_usd")
    pq.write_table(table.set_column(position, "cost_usd", pa.nulls(1, pa.float64())), path)
    tick(world, pipeline)
    content = hook.received[0].json
    assert (content["cost_usd"], content["cost_known"]) == (None, False)
    assert (
        "cost unknown: no tokens, or a model without a price, in the usage of answers of claude-haiku-5-5"
        in content["message"]
    )


def test_the_cost_of_the_table_of_another_submission_is_not_used(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    (path,) = world.path("asked", "results").glob("*.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata({SUBMISSION: "another"}), path)
    tick(world, pipeline)
    assert hook.received[0].json["cost_usd"] is None
    assert "cost unknown: a newer submission replaced the table" in hook.received[0].json["message"]


def test_a_table_that_cannot_be_read_delays_no_message(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    (path,) = world.path("asked", "results").glob("*.parquet")
    path.write_bytes(b"damaged")
    assert tick(world, pipeline) == []
    assert hook.received[0].json["cost_known"] is False
    assert "cost unknown: the table cannot be read" in hook.received[0].json["message"]


def test_batches_near_a_deadline_are_reported_once_a_day(world: World, hook: Receiver) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), notify=[WEBHOOK], batching={"max_requests": 2})
    world.send(pipeline)
    assert tick(world, pipeline) == []
    assert hook.received == []
    now = time.time()
    world.query("update batch set expires_at = :soon", soon=now + 5400)
    for _ in range(2):
        assert tick(world, pipeline) == []
    (expiring,) = hook.received
    ids = {row.id for row in world.query("select id from batch")}
    assert expiring.json["event"] == "deadline"
    assert set(expiring.json["batches"]) == ids
    assert expiring.json["message"].startswith("asked: 2 batches expire soon\n4 rows: 4 pending; ")
    assert "(open): 1 h 30 min left" in expiring.json["message"]
    assert "cost not known yet" in expiring.json["message"]
    soon = now - 29 * 86400
    world.query(
        "update batch set expires_at = :past, created_at = :soon", past=now - 60, soon=soon + 60 * 3600 + 59
    )
    for _ in range(2):
        assert tick(world, pipeline) == []
    _, uncollected = hook.received
    assert uncollected.json["message"].startswith("asked: the results of 2 batches will soon be gone\n")
    assert "are lost. Run the pipeline to collect them." in uncollected.json["message"]
    assert "2 d 12 h left" in uncollected.json["message"]
    assert uncollected.json["id"] != expiring.json["id"]
    world.query("delete from notice")
    world.query("update batch set created_at = :past", past=soon - 60)
    assert tick(world, pipeline) == []  # after the deadline nothing can be done
    assert len(hook.received) == 2


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SMTP_URL", "smtp://us:RECOGNIZE-ME@localhost:9", "would send a password unencrypted"),
        ("SMTP_URL", "imap://us:RECOGNIZE-ME@localhost", "set it to a URL such as"),
        ("SMTP_URL", "smtps://us:RECOGNIZE-ME@localhost:x", "set it to a URL such as"),
        ("SMTP_URL", "smtps://us:RECOGNIZE-ME@localhost:9", "refused"),
        ("HOOK_URL", "file:///RECOGNIZE-ME", "set it to a URL such as"),
        ("HOOK_URL", "https://us:RECOGNIZE-ME@localhost:9/", "set it to a URL such as"),
        ("HOOK_URL", "http://localhost:RECOGNIZE-ME/", "InvalidURL"),
        ("HOOK_URL", "http://localhost:9/RECOGNIZE ME?token=RECOGNIZE-ME\n", "waits: "),
        ("HOOK_URL", "http://localhost:9/RECOGNIZE-ME", "refused"),
    ],
)  # fmt: skip
def test_secrets_are_in_no_message_and_no_file(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    expected: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HOOK_SECRET", "RECOGNIZE-ME")
    monkeypatch.setenv(variable, value)
    pipeline = world.pipeline(texts(1), notify=[EMAIL if variable == "SMTP_URL" else WEBHOOK])
    complete(world, pipeline)
    (problem,) = tick(world, pipeline)
    assert expected in problem
    assert "RECOGNIZE" not in problem + caplog.text
    for path in Path(world.root.settings.root).rglob("*"):
        assert not path.is_file() or b"RECOGNIZE" not in path.read_bytes()


@pytest.mark.parametrize(
    ("notify", "field", "problem"),
    [
        ([{}], "notify.0", "give one of webhook, slack and email"),
        ([WEBHOOK | EMAIL], "notify.0", "give one of webhook, slack and email"),
        ([{"webhook": NOT_A_NAME}], "notify.0.webhook.url_env", "not its value"),
        (
            [{"webhook": {"url_env": "U", "secret_env": "ANTHROPIC_API_KEY"}}],
            "notify.0.webhook.secret_env",
            "holds the credentials of the API, which go to the API alone",
        ),
        (
            [{"webhook": {"url_env": "U", "secret_env": "ANTHROPIC_ADMIN_KEY"}}],
            "notify.0.webhook.secret_env",
            "holds the credentials of the API, which go to the API alone",
        ),
        ([{"webhook": {"url_env": "U"}}], "notify.0.webhook.secret_env", "this field is required"),
        ([{"email": GIVEN | {"from": "a@b.c"}}], "notify.0.email.from", "fields here: to, sender, url_env"),
        ([{"email": GIVEN | {"to": []}}], "notify.0.email.to", "at least 1 item"),
        ([{"email": GIVEN | {"to": ["a@b.c\nBcc: d@e.f"]}}], "notify.0.email.to", "is not an address"),
        ([{"email": GIVEN | {"sender": "us"}}], "notify.0.email.sender", "is not an address"),
        ([WEBHOOK | {"events": ["done"]}], "notify.0.events.0", "'deadline', 'held' or 'budget'"),
        ([WEBHOOK, WEBHOOK | {"events": ["failed"]}], "notify", "webhook HOOK_URL is listed twice"),
    ],
)  # fmt: skip
def test_mistakes_in_the_block_are_reported_at_load(
    tmp_path: Path, notify: list[dict[str, Any]], field: str, problem: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", texts(1))
    with pytest.raises(ConfigError) as caught:
        make_pipeline(tmp_path, "rows.jsonl", notify=notify)
    assert caught.value.field == field
    assert problem in caught.value.problem


@pytest.mark.parametrize("url", ["dagster.example.com", "https://me:pw@x.test", "https://x.test/?token=1"])
def test_an_invalid_or_secret_url_of_the_ui_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BATCH_ASSETS_UI_URL is not valid"):
        Settings.from_env({"BATCH_ASSETS_UI_URL": url, "BATCH_ASSETS_ROOT": "/any"})
