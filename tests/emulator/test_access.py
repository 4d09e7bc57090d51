"""No page of another site reaches the emulator through a browser, and no client holds more than its share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request

from batch_assets.emulator import Emulator
from batch_assets.emulator.access import AllowedHosts
from batch_assets.emulator.connection import EmulatorProtocol
from batch_assets.emulator.holding import Held
from batch_assets.emulator.wire import HttpError

from .conftest import params

_NAMES = frozenset({"0.0.0.0", "emulator"})


def _request(server: str = "10.0.0.5", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": named, "server": (server, 4010)})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.:4010",
        "127.0.0.1:4010",
        "127.8.0.1",
        "[::1]:4010",
        "[0:0:0:0:0:0:0:1]:4010",
        "emulator:4010",
        "EMULATOR",
        "10.0.0.5:4010",
        "[::ffff:10.0.0.5]:4010",
        "0.0.0.0:4010",
    ],
)
def test_its_own_names_are_allowed(host: str) -> None:
    hosts = AllowedHosts(_NAMES)
    hosts.check(_request(host=host))
    hosts.check(_request(host=host, origin=f"http://{host}"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": ""},
        {"host": "evil.example:4010"},
        {"host": "localhost.evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "evil.example@localhost"},
        {"host": "10.0.0.6:4010"},
        {"host": "[::1"},
        {"host": "localhost", "origin": "null"},
        {"host": "localhost", "origin": ""},
        {"host": "localhost", "origin": "https://evil.example"},
        {"host": "localhost", "origin": "http://localhost.evil.example:4010"},
        {"host": "localhost", "origin": "http://evil.example#@localhost"},
        {"host": "localhost", "origin": "localhost"},
        {"host": "localhost", "sec_fetch_site": "cross-site"},
    ],
)
def test_other_names_and_sites_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(HttpError, match="--allow-host") as caught:
        AllowedHosts(_NAMES).check(_request(**headers))
    assert caught.value.status == 403


@pytest.mark.parametrize("path", ["/_emulator/log", "/v1/messages/batches", "/v1/models", "/nowhere"])
def test_every_call_is_checked(http: httpx2.Client, path: str) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        refused = http.get(path, headers=headers)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
        assert refused.headers["x-should-retry"] == "false"
    assert http.get(path, headers={"origin": "http://localhost:3000"}).status_code != 403


@pytest.mark.parametrize("others", [("evil.example",), ("localhost",), ("evil.example", "localhost")])
def test_a_call_with_several_hosts_is_refused(emulator: Emulator, others: tuple[str, ...]) -> None:
    address = emulator.url.removeprefix("http://")
    hosts = "".join(f"Host: {host}\r\n" for host in (address, *others))
    name, port = address.split(":")
    with socket.create_connection((name, int(port))) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"Host: send one header" in answer


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
@pytest.mark.parametrize("path", ["faults", "reset-faults", "settings", "clock", "end", "expire", "archive"])
def test_a_form_of_a_page_changes_nothing(http: httpx2.Client, path: str, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    body = b'[{"action": {"status": 500}}]' if path == "faults" else b'{"latency": 5}'
    refused = http.post(f"/_emulator/{path}", content=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["type"]) == (415, "invalid_request_error")
    assert http.get("/_emulator/faults").json() == []
    assert http.get("/_emulator/settings").json()["latency"] == 0.0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("end", '{"ids": "all"}'),
        ("end", '{"ids": [["x"]]}'),
        ("end", "[]"),
        ("end", ""),
        ("clock", '{"advance": "x"}'),
        ("clock", '{"skew": [1]}'),
        ("faults", "{"),
        ("faults", "5"),
        ("settings", '{"latency": "x"}'),
    ],
)
def test_a_wrong_control_call_is_refused(http: httpx2.Client, path: str, body: str) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert http.post(f"/_emulator/{path}", content=body.encode(), headers=headers).status_code == 400


def test_the_count_of_calls_has_no_names_from_clients(http: httpx2.Client, emulator: Emulator) -> None:
    for number in range(3):
        http.request(f"MKCOL{number}"[:5], f"/nowhere-{number}")
    assert {name for name in emulator.requests() if "nowhere" in name or "MKCOL" in name} == set()


def test_one_client_holds_only_so_much() -> None:
    held = Held(10, "bytes of bodies")
    with held.by("a") as first, held.by("a") as second, held.by("b") as other:
        first(6)
        second(4)
        other(10)
        with pytest.raises(HttpError, match="at most 10"):
            second(1)
    with held.by("a") as again:
        again(10)


def test_a_workspace_has_only_so_many_batches(tmp_path: Path) -> None:
    body = {"requests": [{"custom_id": "a", "params": params()}]}
    with Emulator(state=tmp_path, max_batches=2) as own, httpx2.Client(base_url=own.url) as client:
        client.headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        ids = [client.post("/v1/messages/batches", json=body).json()["id"] for _ in range(2)]
        refused = client.post("/v1/messages/batches", json=body)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert client.delete(f"/v1/messages/batches/{ids[0]}").status_code == 200
        assert client.post("/v1/messages/batches", json=body).status_code == 200


def _served(monkeypatch: pytest.MonkeyPatch, talk: Callable[[int], object], **limits: float) -> None:
    """Run a server in this process, with other limits, and talk to it from a thread."""
    import uvicorn

    for name, value in limits.items():
        monkeypatch.setattr(f"batch_assets.emulator.connection.{name}", value)

    async def app(scope: object, receive: object, send: Callable[[dict[str, object]], object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[misc]

    async def serve() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=EmulatorProtocol, ws="none", lifespan="off", log_level="critical")  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await asyncio.to_thread(talk, listener.getsockname()[1])
        server.should_exit = True
        await serving

    asyncio.run(serve())


def test_a_client_has_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(port: int) -> None:
        opened = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(3)]
        assert opened[2].recv(1000).startswith(b"HTTP/1.1 429 ")
        opened[0].sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert opened[0].recv(1000).startswith(b"HTTP/1.1 200 ")
        opened[1].close()
        opened[0].sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        while opened[0].recv(1000):
            pass
        with socket.create_connection(("127.0.0.1", port), timeout=20) as again:
            again.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert again.recv(1000).startswith(b"HTTP/1.1 200 ")
        for connection in opened:
            connection.close()

    _served(monkeypatch, talk, MAX_CONNECTIONS=2)


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nx: " + b"y" * 90_000, b"GET /" + b"y" * 90_000])
def test_a_long_head_is_cut_off(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(head)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1000) == b""

    _served(monkeypatch, talk)


def test_a_connection_that_sends_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            assert client.recv(1000) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nx")
            while client.recv(1000):
                pass

    _served(monkeypatch, talk, IDLE_SECONDS=0.05)
