"""Bodies of the API's answers are read in bounded memory, and whole when they are compressed."""

from __future__ import annotations

import contextlib
import gzip
import resource
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_assets.core.api import bodies
from batch_assets.core.api.errors import ApiError, RefusedError, UnknownOutcomeError

from ..gateway import Forward, Gateway, instead
from ..support import BATCHES, World, texts

GZIP = zlib.MAX_WBITS + 16  # the way to ask zlib for it


# Made when a test needs it, because each process that collects the tests would spend seconds, and piece by piece,
# because the tests measure how much memory this process has ever needed.
@cache
def bomb(encoding: str) -> bytes:
    """A body of some kilobytes that is hundreds of megabytes when it is unpacked."""
    if encoding == "gzip, gzip":
        return gzip.compress(_packed(600, GZIP), 9)  # 1.7 kB
    return _packed(300, GZIP if encoding == "gzip" else zlib.MAX_WBITS)


def _packed(mebibytes: int, wbits: int) -> bytes:
    packer, piece = zlib.compressobj(9, wbits=wbits), b"x" * (1 << 20)
    return b"".join(packer.compress(piece) for _ in range(mebibytes)) + packer.flush()


@pytest.fixture
def gateway(prompt_retries: None, new_world: Callable[..., World]) -> Iterator[Gateway]:
    emulator = new_world(name="unused").emulator
    with Gateway(emulator.url) as running:
        yield running


@pytest.fixture
def behind(gateway: Gateway, new_world: Callable[..., World]) -> World:
    return new_world(BATCH_ASSETS_EMULATOR=gateway.url)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("status", [200, 400, 404, 413, 429, 500])
@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "deflate"])
@pytest.mark.parametrize("call", ["list", "retrieve", "cancel", "delete"])
def test_a_compressed_bomb_is_not_unpacked(
    gateway: Gateway, behind: World, status: int, encoding: str, call: str
) -> None:
    method = {"cancel": "POST", "delete": "DELETE"}.get(call, "GET")
    ending = {"list": BATCHES, "cancel": "/cancel"}.get(call, "/msgbatch_x")
    gateway.on(method, ending, instead(status, bomb(encoding), **{"content-encoding": encoding}), times=3)
    api = behind.root.api
    calls: dict[str, Callable[[], object]] = {
        "list": api.page,
        "retrieve": lambda: api.retrieve("msgbatch_x"),
        "cancel": lambda: api.cancel("msgbatch_x"),
        "delete": lambda: api.delete("msgbatch_x"),
    }
    before = peak()
    with pytest.raises(ApiError) as caught:
        calls[call]()
    assert peak() - before < 200_000  # kB; a body of 64 MiB may be read
    if status in (413, 429):
        assert isinstance(caught.value, RefusedError)
    else:
        assert isinstance(caught.value, UnknownOutcomeError)


def test_a_plain_error_without_end_is_cut(gateway: Gateway, behind: World) -> None:
    gateway.on("GET", BATCHES, instead(500, b"y" * (100 << 20)), times=3)
    before = peak()
    with pytest.raises(UnknownOutcomeError):
        behind.root.api.page()
    assert peak() - before < 150_000


# A member of gzip whose file name never ends: a decoder reads it and returns nothing.
ENDLESS_NAME = b"\x1f\x8b\x08\x08" + bytes(6)


@pytest.mark.parametrize(("encoding", "begin"), [("identity", b""), ("gzip", ENDLESS_NAME)], ids=["plain", "gzip"])
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_comes_byte_by_byte_ends(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, status: int, encoding: str, begin: bytes
) -> None:
    """Each byte began the timeout again."""
    monkeypatch.setattr(bodies, "ANSWER_SECONDS", 0.5)
    is_over = threading.Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-encoding", encoding)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(begin)
                while not is_over.wait(0.02):
                    self.wfile.write(b" ")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        ended = threading.Timer(20, is_over.set)  # without the limit, the test fails after that
        ended.start()
        api = new_world(BATCH_ASSETS_EMULATOR=f"http://127.0.0.1:{server.server_address[1]}").root.api
        with pytest.raises(ApiError):
            api.page()
        assert not is_over.is_set()
        ended.cancel()
        is_over.set()
        server.shutdown()


def test_nothing_compressed_is_asked_for(gateway: Gateway, behind: World) -> None:
    asked: list[str] = []
    answer = gateway.answer

    def watched(method: str, path: str, headers: dict[str, str], body: bytes) -> object:
        asked.append({name.lower(): value for name, value in headers.items()}["accept-encoding"])
        return answer(method, path, headers, body)

    gateway.answer = watched  # type: ignore[method-assign, assignment]
    behind.run(behind.pipeline(texts(2)))
    assert set(asked) == {"identity"}


def _members(content: bytes) -> bytes:
    return b"".join(gzip.compress(line + b"\n") for line in content.splitlines())


def _padded(content: bytes) -> bytes:
    return gzip.compress(content) + bytes(512)


def _raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("pack", "encoding"),
    [
        (gzip.compress, "gzip"),
        (_members, "gzip"),
        (_members, "x-gzip"),
        (_padded, "gzip"),
        (zlib.compress, "deflate"),
        (_raw_deflate, "deflate"),
        (lambda content: gzip.compress(_members(content)), "gzip, gzip"),
    ],
)
def test_compressed_results_are_read_to_the_last_member(
    gateway: Gateway, behind: World, pack: Callable[[bytes], bytes], encoding: str
) -> None:
    def packed(forward: Forward) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = forward()
        return status, headers | {"content-encoding": encoding}, pack(body)

    pipeline = behind.pipeline(texts(50))
    behind.send(pipeline)
    gateway.on("GET", "/results", packed)
    done = behind.collect(pipeline)
    assert done.problems == []
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 50}


@pytest.mark.parametrize(
    "harm", [lambda packed: packed[:-9], lambda packed: packed[:30], lambda packed: b"no gzip"]
)
def test_compressed_results_that_are_cut_are_downloaded_again(
    gateway: Gateway, behind: World, harm: Callable[[bytes], bytes]
) -> None:
    def cut(forward: Forward) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = forward()
        return status, headers | {"content-encoding": "gzip"}, harm(_members(body))

    pipeline = behind.pipeline(texts(50))
    behind.send(pipeline)
    gateway.on("GET", "/results", cut)
    (problem,) = behind.collect(pipeline).problems
    assert "the next run downloads them again" in problem
    behind.finish(pipeline)
    assert len(behind.table(pipeline)) == 50


def test_a_download_with_far_too_many_lines_ends(gateway: Gateway, behind: World) -> None:
    pipeline = behind.pipeline(texts(2))
    behind.send(pipeline)
    flood = gzip.compress(b'{"custom_id":"x"}\n' * 5_000_000)
    gateway.on("GET", "/results", instead(200, flood, **{"content-encoding": "gzip"}))
    (problem,) = behind.collect(pipeline).problems
    assert "more than 1,004 lines for 2 requests" in problem
    behind.finish(pipeline)
