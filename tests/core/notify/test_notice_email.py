"""Notifications by email, to a real SMTP server."""

from __future__ import annotations

import datetime as dt
import re
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ..noticing import EMAIL, complete, now_due, states, tick
from ..support import World, texts


class MailServer(Controller):
    """An SMTP server on any free port."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Mailbox:
    """The messages that an SMTP server accepted."""

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
    """A self-signed certificate for the mail server, with its key."""
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
def test_a_message_arrives_by_email(
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
            (problem,) = tick(world, pipeline)
            assert "CERTIFICATE_VERIFY_FAILED" in problem  # the certificate is self-signed
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


def test_addresses_that_a_mail_server_refuses_are_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox()
    server = MailServer(box, hostname="localhost", port=0)
    server.start()
    monkeypatch.setenv("SMTP_URL", f"smtp://localhost:{server.port}")
    try:
        pipeline = world.pipeline(texts(1), notify=[EMAIL])
        complete(world, pipeline)
        box.refuses = dict.fromkeys(("ada@example.com", "bob@example.com"), "450 later")
        (problem,) = tick(world, pipeline)
        assert (
            "waits: the server refused ada@example.com (SMTP 450), bob@example.com (SMTP 450), next try" in problem
        )
        box.refuses = {"bob@example.com": "550 no mailbox of that name"}
        now_due(world)
        (problem,) = tick(world, pipeline)
        assert problem.endswith("was refused: the server refused bob@example.com (SMTP 550)")
        now_due(world)
        tick(world, pipeline)
    finally:
        server.stop()
    assert [recipients for recipients, _ in box.letters] == [["ada@example.com"]]


def test_a_message_waits_while_the_password_is_refused(
    world: World, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, password = Mailbox(), [b"renewed"]

    def log_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == password[0], handled=False)

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    options: dict[str, Any] = {"ssl_context": tls, "authenticator": log_in, "auth_require_tls": False}
    server = MailServer(box, hostname="localhost", port=0, **options)
    server.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SMTP_URL", f"smtps://us:expired@localhost:{server.port}")
    try:
        pipeline = world.pipeline(texts(1), notify=[EMAIL])
        complete(world, pipeline)
        (problem,) = tick(world, pipeline)
        assert "waits: SMTP 535 " in problem
        assert "expired" not in problem
        monkeypatch.setenv("SMTP_URL", f"smtps://us:renewed@localhost:{server.port}")
        now_due(world)
        assert tick(world, pipeline) == []
    finally:
        server.stop()
    assert len(box.letters) == 1


@contextmanager
def curt_server(greeting: bytes) -> Iterator[int]:
    """The port of an SMTP server that refuses every client before it can send a message."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(greeting + b"\r\n")
            for line in self.rfile:
                self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"550 not you\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("greeting", "code"), [(b"554 no service", 554), (b"220 hello", 550)])
def test_a_message_waits_while_a_mail_server_refuses_all_clients(
    world: World, monkeypatch: pytest.MonkeyPatch, greeting: bytes, code: int
) -> None:
    pipeline = world.pipeline(texts(1), notify=[EMAIL])
    complete(world, pipeline)
    with curt_server(greeting) as port:
        monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{port}")
        (problem,) = tick(world, pipeline)
    assert f"waits: SMTP {code} " in problem
    assert states(world) == ["waiting"]
