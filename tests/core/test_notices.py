"""Messages about pipelines: what is told, that it arrives, and that it is told once."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from batch_assets.core.config import Pipeline
from batch_assets.core.errors import ConfigError, SettingsError
from batch_assets.core.ledger import notices, submissions
from batch_assets.core.notices import Noticed, send_notices
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.core.table_metadata import SUBMISSION
from tests.forked import ForkServer
from tests.receivers import Receiver, receiver

from .support import World, make_pipeline, texts, write_rows

DOCS = Path(__file__).parents[2] / "docs" / "notifications.md"
SECRET = "whsec-RECOGNISE-ME-4711"
PATH = "/hooks/T0P-S3CRET-PATH"
WEBHOOK = {"webhook": {"url_env": "HOOK_URL", "secret_env": "HOOK_SECRET"}}
EMAIL = {
    "email": {"to": ["ada@example.com", "bob@example.com"], "sender": "us@example.com", "url_env": "SMTP_URL"}
}

GIVEN = EMAIL["email"]
NOT_A_NAME = {"url_env": "https://x.test/y", "secret_env": "S"}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as running:
        monkeypatch.setenv("HOOK_URL", running.url + PATH)
        monkeypatch.setenv("HOOK_SECRET", SECRET)
        yield running


def noticed(*pipelines: Pipeline) -> dict[str, Noticed]:
    return {pipeline.name: Noticed(pipeline, [pipeline.name, "results"]) for pipeline in pipelines}


def tick(world: World, *pipelines: Pipeline) -> list[str]:
    """What the sensor does, with results announced as they are."""
    return send_notices(world.root, noticed(*pipelines))


def complete(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """The whole chain, and the event in Dagster's log."""
    world.send(pipeline, partition)
    world.finish(pipeline, partition)
    announce(world, pipeline, partition)


def announce(world: World, pipeline: Pipeline, partition: str = "") -> None:
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, partition)
        assert newest is not None
        submissions.announced(tx, newest.id)


def now_due(world: World) -> None:
    """As when the pause is over."""
    world.query("update notice set next_try_at = 0 where state = 'waiting'")


def states(world: World) -> list[str]:
    return [row.state for row in world.query("select state from notice order by created_at, id")]


def verify() -> Callable[..., bool]:
    """The function that the documentation shows."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., bool] = names["is_genuine"]
    return found


def test_a_webhook_is_told_once_and_can_verify_it(world: World, hook: Receiver) -> None:
    world.reopened(BATCH_ASSETS_UI_URL="https://dagster.example.com/")
    pipeline = world.pipeline({**texts(3), "empty": ""}, notify=[WEBHOOK], max_failed=0.5)
    world.send(pipeline, "2026-11-20")
    world.finish(pipeline, "2026-11-20")
    assert tick(world, pipeline) == []
    assert hook.received == []  # not before Dagster has it
    announce(world, pipeline, "2026-11-20")
    assert tick(world, pipeline) == []
    assert tick(world, pipeline) == []
    (message,) = hook.received
    told = message.json
    link = "https://dagster.example.com/assets/asked/results?view=partitions&partition=2026-11-20"
    table = world.table(pipeline)
    assert told["cost_usd"] == pytest.approx(table["cost_usd"].sum())
    assert told["cost_usd"] > 0
    assert told | {"cost_usd": 0, "id": "", "submission": "", "message": "", "sent_at": ""} == {
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
    first, second, third = told["message"].splitlines()
    assert first == "asked [2026-11-20]: results are complete"
    assert re.fullmatch(
        r"4 rows: 3 succeeded, 1 rejected; cost less than \$0\.0001 \(by the price list; .*\)", second
    )
    assert third == link
    assert re.fullmatch(r"[0-9a-f]{32}", told["id"])
    assert message.path == PATH
    assert message.headers["Content-Type"] == "application/json"
    genuine, signed = verify(), message.headers["X-Batch-Assets-Signature"]
    assert genuine(SECRET, signed, message.body)
    assert not genuine("another", signed, message.body)
    assert not genuine(SECRET, signed, message.body + b" ")
    assert not genuine(SECRET, signed, message.body, tolerance=-1)


def test_too_many_failed_rows_are_told_in_place_of_complete(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline({**texts(3), "empty": ""}, notify=[WEBHOOK])
    complete(world, pipeline)
    tick(world, pipeline)
    (message,) = hook.received
    assert message.json["event"] == "failed"
    assert message.json["link"] is None
    assert message.json["message"].startswith(
        "asked: 25.00% of the rows have no answer, and max_failed is 1.00%\n4 rows: 3 succeeded, 1 rejected; cost "
    )


def test_only_what_is_asked_for_is_told(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK | {"events": ["failed", "deadline"]}])
    complete(world, pipeline)
    tick(world, pipeline)
    assert hook.received == []
    assert states(world) == []


def test_what_was_complete_before_is_not_told(world: World, hook: Receiver) -> None:
    complete(world, world.pipeline(texts(1)))
    pipeline = world.pipeline(notify=[WEBHOOK])
    assert tick(world, pipeline) == []
    assert tick(world, pipeline) == []
    assert hook.received == []
    complete(world, world.pipeline(texts(2), notify=[WEBHOOK]))
    tick(world, pipeline)
    assert [message.json["rows"] for message in hook.received] == [2]


def test_a_target_that_is_taken_away_gets_nothing_more(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(503, b"")]
    tick(world, pipeline)
    tick(world, world.pipeline())
    assert states(world) == ["dropped"]
    now_due(world)
    assert tick(world, pipeline) == []  # it is there again: for what comes from now on
    assert len(hook.received) == 1


def test_a_message_that_does_not_arrive_is_sent_again_more_and_more_rarely(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(503, b""), (0, b""), (429, b"")]
    said = [tick(world, pipeline)]
    assert tick(world, pipeline) == said[0]
    assert len(hook.received) == 1  # its time has not come
    for _ in range(2):
        now_due(world)
        said.append(tick(world, pipeline))
    prefix = "asked: the message `complete` to webhook HOOK_URL waits: "
    assert [text for (text,) in said][::2] == [
        f"{prefix}HTTP 503, next try in 1 min",
        f"{prefix}HTTP 429, next try in 4 min",
    ]
    assert said[1][0].endswith("next try in 2 min")
    now_due(world)
    assert tick(world, pipeline) == []
    now_due(world)
    tick(world, pipeline)
    assert len(hook.received) == 4
    assert len({message.json["id"] for message in hook.received}) == 1
    assert all(verify()(SECRET, m.headers["X-Batch-Assets-Signature"], m.body) for m in hook.received)
    assert states(world) == ["sent"]


def test_the_pauses_end_at_a_day_and_the_tries_after_a_week(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.usual = (500, b"")
    tick(world, pipeline)
    world.query("update notice set attempts = 5000, next_try_at = 0")
    assert tick(world, pipeline)[0].endswith("next try in 1440 min")
    world.query("update notice set created_at = created_at - 7 * 86400 - 60, next_try_at = 0")
    assert tick(world, pipeline)[0].endswith("is given up after 5002 tries: HTTP 500")
    world.query("update notice set next_try_at = 0")
    assert tick(world, pipeline) == []
    assert states(world) == ["given_up"]
    assert len(hook.received) == 3


@pytest.mark.parametrize("status", [400, 410, 302])
def test_a_refused_message_is_said_and_not_sent_again(world: World, hook: Receiver, status: int) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    hook.answers = [(status, b"")]
    (said,) = tick(world, pipeline)
    assert f"to webhook HOOK_URL was refused: HTTP {status}" in said
    now_due(world)
    assert tick(world, pipeline) == [said]
    world.query("update notice set next_try_at = next_try_at - 86400 - 60")
    assert tick(world, pipeline) == []
    assert [message.path for message in hook.received] == [PATH]


def test_one_target_that_fails_does_not_hold_up_another(
    world: World, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWAY_URL", "http://127.0.0.1:9/hook")
    away = {"webhook": {"url_env": "AWAY_URL", "secret_env": "HOOK_SECRET"}}
    unset = {"webhook": {"url_env": "UNSET_URL", "secret_env": "HOOK_SECRET"}}
    pipeline = world.pipeline(texts(1), notify=[away, unset, WEBHOOK])
    complete(world, pipeline)
    said = "\n".join(tick(world, pipeline))
    assert re.search("to webhook AWAY_URL waits: .*refused", said)
    assert "to webhook UNSET_URL waits: the environment variable UNSET_URL is not set" in said
    assert len(hook.received) == 1


def test_an_unknown_cost_is_said_to_be_unknown(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    (path,) = world.path("asked", "results").glob("*.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("cost_usd")
    pq.write_table(table.set_column(place, "cost_usd", pa.nulls(1, pa.float64())), path)
    tick(world, pipeline)
    told = hook.received[0].json
    assert (told["cost_usd"], told["cost_known"]) == (None, False)
    assert "cost unknown: no price for claude-haiku-5-5" in told["message"]


def test_the_cost_of_another_submissions_table_is_not_taken(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    (path,) = world.path("asked", "results").glob("*.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata({SUBMISSION: "another"}), path)
    tick(world, pipeline)
    assert hook.received[0].json["cost_usd"] is None
    assert "cost not known yet" in hook.received[0].json["message"]


def test_a_table_that_cannot_be_read_holds_up_no_message(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    (path,) = world.path("asked", "results").glob("*.parquet")
    path.write_bytes(b"damaged")
    assert tick(world, pipeline) == []
    assert hook.received[0].json["cost_known"] is False
    assert "cost unknown: the table cannot be read" in hook.received[0].json["message"]


def test_batches_near_their_end_are_told_once_a_day(world: World, hook: Receiver) -> None:
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
    assert expiring.json["message"].startswith(
        "asked: 2 batches are near the end of the 24 hours\n4 rows: 4 pending; "
    )
    assert "(open): 1 h 29 min left" in expiring.json["message"]
    assert "cost not known yet" in expiring.json["message"]
    soon = now - 29 * 86400
    world.query(
        "update batch set expires_at = :past, created_at = :soon", past=now - 60, soon=soon + 60 * 3600 + 59
    )
    for _ in range(2):
        assert tick(world, pipeline) == []
    _, uncollected = hook.received
    assert uncollected.json["message"].startswith("asked: 2 batches are near the end of their results\n")
    assert "60 h left" in uncollected.json["message"]
    assert uncollected.json["id"] != expiring.json["id"]
    world.query("delete from notice")
    world.query("update batch set created_at = :past", past=soon - 60)
    assert tick(world, pipeline) == []  # nothing can be done any more
    assert len(hook.received) == 2


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def send_from(folder: str, env: dict[str, str]) -> None:
    """Another process with the same pipeline."""
    pipeline = make_pipeline(Path(folder), {"path": "rows.jsonl", "key": "id"}, notify=[WEBHOOK])
    os.environ.update(env)
    with Root(Settings.from_env()) as root:
        send_notices(root, noticed(pipeline))


def _work(world: World, hook: Receiver) -> tuple[str, dict[str, Any]]:
    settings = world.root.settings
    env = {
        "BATCH_ASSETS_EMULATOR": world.emulator.url,
        "BATCH_ASSETS_ROOT": settings.root,
        "BATCH_ASSETS_LEDGER": settings.ledger_url,
        "HOOK_URL": hook.url + PATH,
        "HOOK_SECRET": SECRET,
    }
    return f"{__name__}:send_from", {"folder": str(world.folder), "env": env}


def test_a_process_killed_at_any_point_neither_loses_a_message_nor_sends_it_for_ever(
    world: World, hook: Receiver, children: ForkServer
) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    received = []
    for boundary in count(1, 2):
        hook.received.clear()
        (outcome,) = children.run(_work(world, hook), die_at=boundary)
        assert not outcome.error
        now_due(world)
        assert tick(world, pipeline) == []
        received.append(len(hook.received))
        assert states(world) == ["sent"]
        assert len({message.json["id"] for message in hook.received}) == 1
        world.query("delete from notice")
        if not outcome.killed:
            break
    assert set(received) == {1, 2}  # twice where it died with the message sent and not noted
    assert len(received) > 5


def test_processes_that_send_at_once_send_one_message(
    new_world: Callable[..., World], ledger_url: str, hook: Receiver, children: ForkServer
) -> None:
    world = new_world(ledger=ledger_url)
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    outcomes = children.run(*[_work(world, hook)] * 4)
    assert not any(outcome.error for outcome in outcomes)
    assert len(hook.received) == 1
    assert states(world) == ["sent"]
    world.query("update notice set state = 'waiting', next_try_at = 0")
    with world.root.ledger.read() as tx:
        (seen,) = notices.due(tx, ["asked"])
    for is_first in (True, False):  # two that saw it at once
        with world.root.ledger.write() as tx:
            assert notices.claim(tx, seen, 60.0) is is_first


def test_a_ledger_that_was_made_again_tells_under_the_same_ids(world: World, hook: Receiver) -> None:
    pipeline = world.pipeline(texts(1), notify=[WEBHOOK])
    complete(world, pipeline)
    tick(world, pipeline)
    world.root.close()
    for path in Path(world.root.settings.root).glob("ledger.db*"):
        path.unlink()
    world.reopened()
    tick(world, pipeline)
    world.finish(pipeline)
    announce(world, pipeline)
    tick(world, pipeline)
    assert [message.json["id"] for message in hook.received] == [hook.received[0].json["id"]] * 2


class MailServer(Controller):
    """On any free port."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Mailbox:
    """What an SMTP server took."""

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], EmailMessage]] = []
        self.refuses: dict[str, str] = {}

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        letter = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        self.letters.append((envelope.rcpt_tos, letter))
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the mail server, signed by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("mail") / "server.pem"
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
def test_a_message_comes_by_e_mail(
    world: World, certificate: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    box, logins = Mailbox(), []

    def log_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss/word")

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    options: dict[str, Any] = {"smtps": {"ssl_context": tls}, "smtp+starttls": {"tls_context": tls}}.get(
        scheme, {}
    )
    if scheme != "smtp":
        options |= {"authenticator": log_in, "auth_require_tls": scheme != "smtps"}
    server = MailServer(box, hostname="localhost", port=0, **options)
    server.start()
    user = "" if scheme == "smtp" else "us:p%40ss%2Fword@"
    monkeypatch.setenv("SMTP_URL", f"{scheme}://{user}localhost:{server.port}")
    try:
        pipeline = world.pipeline(texts(2), notify=[EMAIL])
        complete(world, pipeline)
        if scheme != "smtp":
            (said,) = tick(world, pipeline)
            assert "CERTIFICATE_VERIFY_FAILED" in said  # nobody vouches for it
            assert not logins
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            now_due(world)
        assert tick(world, pipeline) == []
        assert tick(world, pipeline) == []
    finally:
        server.stop()
    ((recipients, letter),) = box.letters
    assert recipients == ["ada@example.com", "bob@example.com"]
    assert (letter["Subject"], letter["From"]) == ("asked: results are complete", "us@example.com")
    assert letter["To"] == "ada@example.com, bob@example.com"
    assert letter["Date"]
    assert re.fullmatch(r"<[0-9a-f]{32}@batch-assets>", letter["Message-ID"])
    assert "2 rows: 2 succeeded; cost less than $0.0001" in letter.get_content()
    assert logins == ([] if scheme == "smtp" else [(b"us", b"p@ss/word")])


def test_addresses_that_a_mail_server_refuses_are_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox()
    server = MailServer(box, hostname="localhost", port=0)
    server.start()
    monkeypatch.setenv("SMTP_URL", f"smtp://localhost:{server.port}")
    try:
        pipeline = world.pipeline(texts(1), notify=[EMAIL])
        complete(world, pipeline)
        box.refuses = dict.fromkeys(("ada@example.com", "bob@example.com"), "450 later")
        (said,) = tick(world, pipeline)
        assert "waits: the server refused ada@example.com (SMTP 450), bob@example.com (SMTP 450), next try" in said
        box.refuses = {"bob@example.com": "550 nobody of that name"}
        now_due(world)
        (said,) = tick(world, pipeline)
        assert said.endswith("was refused: the server refused bob@example.com (SMTP 550)")
        now_due(world)
        tick(world, pipeline)
    finally:
        server.stop()
    assert [recipients for recipients, _ in box.letters] == [["ada@example.com"]]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SMTP_URL", "smtp://us:RECOGNISE-ME@localhost:9", "would send a password unencrypted"),
        ("SMTP_URL", "imap://us:RECOGNISE-ME@localhost", "takes a URL such as"),
        ("SMTP_URL", "smtps://us:RECOGNISE-ME@localhost:x", "takes a URL such as"),
        ("SMTP_URL", "smtps://us:RECOGNISE-ME@localhost:9", "refused"),
        ("HOOK_URL", "file:///RECOGNISE-ME", "holds no URL such as"),
        ("HOOK_URL", "https://us:RECOGNISE-ME@localhost:9/", "holds no URL such as"),
        ("HOOK_URL", "http://localhost:RECOGNISE-ME/", "InvalidURL"),
        ("HOOK_URL", "http://localhost:9/RECOGNISE ME?token=RECOGNISE-ME\n", "waits: "),
        ("HOOK_URL", "http://localhost:9/RECOGNISE-ME", "refused"),
    ],
)  # fmt: skip
def test_secrets_are_in_no_message_and_no_file(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    said: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HOOK_SECRET", "RECOGNISE-ME")
    monkeypatch.setenv(variable, value)
    pipeline = world.pipeline(texts(1), notify=[EMAIL if variable == "SMTP_URL" else WEBHOOK])
    complete(world, pipeline)
    (problem,) = tick(world, pipeline)
    assert said in problem
    assert "RECOGNISE" not in problem + caplog.text
    for path in Path(world.root.settings.root).rglob("*"):
        assert not path.is_file() or b"RECOGNISE" not in path.read_bytes()


@pytest.mark.parametrize(
    ("notify", "field", "problem"),
    [
        ([{}], "notify.0", "give one of webhook, slack and email"),
        ([WEBHOOK | EMAIL], "notify.0", "give one of webhook, slack and email"),
        ([{"webhook": NOT_A_NAME}], "notify.0.webhook.url_env", "not its value"),
        ([{"webhook": {"url_env": "U"}}], "notify.0.webhook.secret_env", "this field is required"),
        ([{"email": GIVEN | {"from": "a@b.c"}}], "notify.0.email.from", "fields here: to, sender, url_env"),
        ([{"email": GIVEN | {"to": []}}], "notify.0.email.to", "at least 1 item"),
        ([{"email": GIVEN | {"to": ["a@b.c\nBcc: d@e.f"]}}], "notify.0.email.to", "is no address"),
        ([{"email": GIVEN | {"sender": "us"}}], "notify.0.email.sender", "is no address"),
        ([WEBHOOK | {"events": ["done"]}], "notify.0.events.0", "'complete', 'failed' or 'deadline'"),
        ([WEBHOOK, WEBHOOK | {"events": ["failed"]}], "notify", "webhook HOOK_URL is there twice"),
    ],
)  # fmt: skip
def test_mistakes_in_the_block_are_said_at_load(
    tmp_path: Path, notify: list[dict[str, Any]], field: str, problem: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", texts(1))
    with pytest.raises(ConfigError) as caught:
        make_pipeline(tmp_path, "rows.jsonl", notify=notify)
    assert caught.value.field == field
    assert problem in caught.value.problem


@pytest.mark.parametrize("url", ["dagster.example.com", "https://me:pw@x.test", "https://x.test/?token=1"])
def test_an_address_of_the_ui_with_secrets_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BATCH_ASSETS_UI_URL takes the address"):
        Settings.from_env({"BATCH_ASSETS_UI_URL": url, "BATCH_ASSETS_ROOT": "/any"})
