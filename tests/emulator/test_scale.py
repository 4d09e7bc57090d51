"""A full batch needs little memory, and the server answers other calls while it processes one."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import orjson
import psutil

from batch_assets.emulator import Emulator

REQUESTS = 100_000
MEMORY_LIMIT = 400_000_000
KEY = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}


class PeakMemory(threading.Thread):
    """Records the peak of the resident memory of a process while the `with` block runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._done = psutil.Process(pid), threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __enter__(self) -> "PeakMemory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def pieces(text_bytes: int) -> Iterator[bytes]:
    """Yield a create body of REQUESTS requests with texts of `text_bytes` bytes, in pieces."""
    text = "x" * text_bytes
    message = orjson.dumps(
        {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": [{"role": "user", "content": text}]}
    )
    for start in range(0, REQUESTS, 1000):
        lines = [b'{"custom_id":"row-%06d","params":%s}' % (at, message) for at in range(start, start + 1000)]
        yield (b'{"requests":[' if start == 0 else b",") + b",".join(lines)
    yield b"]}"


def test_a_full_batch(tmp_path: Path) -> None:
    size = sum(map(len, pieces(2350)))
    assert size > 245_000_000
    with (
        Emulator(state=tmp_path) as emulator,
        httpx2.Client(base_url=emulator.url, headers=KEY, timeout=120) as http,
        PeakMemory(emulator.pid) as memory,
    ):
        created = http.post("/v1/messages/batches", content=pieces(2350))
        assert created.json()["request_counts"]["processing"] == REQUESTS
        batch_id, lines, last, tail = created.json()["id"], 0, 0, b""
        polls = 0
        with http.stream("GET", f"/v1/messages/batches/{batch_id}/results") as response:
            for piece in response.iter_raw():
                lines += piece.count(b"\n")
                tail = piece[-1:]
                if lines - last > 20_000:  # the server answers other calls during a download
                    last = lines
                    counts = httpx2.get(f"{emulator.url}/v1/messages/batches/{batch_id}", headers=KEY).json()
                    polls += counts["request_counts"]["succeeded"] == REQUESTS
        assert (lines, tail) == (REQUESTS, b"\n")
        assert polls >= 3
        assert emulator.log()[0]["bytes"] == size
    assert 0 < memory.peak < MEMORY_LIMIT


def test_polls_are_answered_while_a_create_is_checked(tmp_path: Path) -> None:
    with Emulator(state=tmp_path) as emulator:
        done = threading.Event()

        def upload() -> None:
            httpx2.post(f"{emulator.url}/v1/messages/batches", content=pieces(400), headers=KEY, timeout=120)
            done.set()

        thread = threading.Thread(target=upload)
        thread.start()
        answered = 0
        while not done.is_set():
            assert httpx2.get(f"{emulator.url}/v1/models", headers=KEY, timeout=60).status_code == 200
            answered += not done.is_set()
        thread.join()
        assert answered >= 3
