"""The least work that answers a dataset in Python: it streams bytes and records nothing.

The rows of the output are in the order in which the API returned them, without the dataset's text: nothing is
joined, and nothing would survive an interruption.

`python -m benchmarks.bare_loop DATASET WORK` is a process that does this without the SDK, and so without its
imports.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import httpx2
import jinja2
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import MAX_TOKENS, MODEL, POLL_SECONDS, SYSTEM, USER_TEMPLATE

BATCHES = "/v1/messages/batches"
MAX_REQUESTS = 100_000
MAX_BYTES = 250_000_000

_BODY_START = b'{"requests":['
_BODY_END = b"]}"

RESULT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("result_type", pa.string()),
        ("response_text", pa.string()),
        ("stop_reason", pa.string()),
        ("model", pa.string()),
        ("message_id", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
    ]
)


class Transport(Protocol):
    """How the loop reaches the API."""

    def create(self, body: Path) -> str:
        """Create a batch from a file with its body, and return its id."""

    def has_ended(self, batch_id: str) -> bool:
        """Whether a batch has ended."""

    def download(self, batch_id: str, path: Path) -> None:
        """Write a batch's results to a file."""


def answer(api: Transport, dataset: Path, out: Path, work: Path) -> None:
    """Answer `dataset` as a stream of bytes through files in `work`, and write the answers to `out`."""
    work.mkdir(parents=True, exist_ok=True)
    batch_ids = [api.create(body) for body in _write_bodies(dataset, work)]
    with pq.ParquetWriter(out, RESULT_SCHEMA) as writer:
        for number, batch_id in enumerate(batch_ids):
            wait_until(partial(api.has_ended, batch_id))
            downloaded = work / f"results-{number:05d}.jsonl"
            api.download(batch_id, downloaded)
            for columns in _parse(downloaded):
                writer.write_batch(pa.record_batch(columns, schema=RESULT_SCHEMA))


def wait_until(has_ended: Callable[[], bool]) -> None:
    """Ask until a batch has ended."""
    while not has_ended():
        time.sleep(POLL_SECONDS)


def save(response: Any, path: Path) -> None:
    """Write the body of a streamed response to a file."""
    with path.open("wb") as file:
        for piece in response.iter_bytes():
            file.write(piece)


def _write_bodies(dataset: Path, work: Path) -> Iterator[Path]:
    """Write files, each with the body that creates one batch. A file is complete when it is yielded."""
    template = jinja2.Environment(autoescape=False).from_string(USER_TEMPLATE)
    file: BinaryIO | None = None
    path = work
    number = count = size = 0
    try:
        for table in pq.ParquetFile(dataset).iter_batches(10_000, columns=["id", "text"]):
            ids, texts = table.column("id").to_pylist(), table.column("text").to_pylist()
            for row_id, text in zip(ids, texts, strict=True):
                line = orjson.dumps(
                    {
                        "custom_id": row_id,
                        "params": {
                            "model": MODEL,
                            "max_tokens": MAX_TOKENS,
                            "system": SYSTEM,
                            "messages": [{"role": "user", "content": template.render(text=text)}],
                        },
                    }
                )
                if file is not None and (count == MAX_REQUESTS or size + len(line) + 4 > MAX_BYTES):
                    file.write(_BODY_END)
                    file.close()
                    file = None
                    yield path
                if file is None:
                    path = work / f"requests-{number:05d}.json"
                    file = path.open("wb")
                    number += 1
                    count, size = 0, file.write(_BODY_START)
                else:
                    size += file.write(b",\n")
                size += file.write(line)
                count += 1
        if file is not None:
            file.write(_BODY_END)
            file.close()
            yield path
    finally:
        if file is not None:
            file.close()


class FileBody:
    """The bytes of a file, from its start for every iteration."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece


def _parse(path: Path) -> Iterator[list[list[Any]]]:
    """Columns of up to 10,000 result lines at a time."""
    rows: list[tuple[Any, ...]] = []
    with path.open("rb") as file:
        for line in file:  # a binary file is split only at b"\n"
            response = orjson.loads(line)
            result = response["result"]
            if result["type"] == "succeeded":
                message = result["message"]
                rows.append(
                    (
                        response["custom_id"],
                        "succeeded",
                        "".join([block["text"] for block in message["content"] if block["type"] == "text"]),
                        message["stop_reason"],
                        message["model"],
                        message["id"],
                        message["usage"]["input_tokens"],
                        message["usage"]["output_tokens"],
                    )
                )
            else:
                rows.append((response["custom_id"], result["type"], None, None, None, None, None, None))
            if len(rows) == 10_000:
                yield [list(column) for column in zip(*rows, strict=True)]
                rows = []
    if rows:
        yield [list(column) for column in zip(*rows, strict=True)]


class _HttpTransport:
    """HTTP and nothing else."""

    def __init__(self) -> None:
        headers = {"x-api-key": os.environ["ANTHROPIC_API_KEY"], "anthropic-version": "2023-06-01"}
        self._client = httpx2.Client(base_url=os.environ["ANTHROPIC_BASE_URL"], headers=headers, timeout=600)

    def create(self, body: Path) -> str:
        headers = {"Content-Type": "application/json", "Content-Length": str(body.stat().st_size)}
        response = self._client.post(BATCHES, content=iter(FileBody(body)), headers=headers)
        return str(response.raise_for_status().json()["id"])

    def has_ended(self, batch_id: str) -> bool:
        response = self._client.get(f"{BATCHES}/{batch_id}").raise_for_status()
        return bool(response.json()["processing_status"] == "ended")

    def download(self, batch_id: str, path: Path) -> None:
        with self._client.stream("GET", f"{BATCHES}/{batch_id}/results") as response:
            save(response.raise_for_status(), path)


def main() -> None:
    """Answer a dataset, and print how many rows have an answer."""
    dataset, work = Path(sys.argv[1]), Path(sys.argv[2])
    answer(_HttpTransport(), dataset, work / "out.parquet", work)
    kinds = pq.read_table(work / "out.parquet", columns=["result_type"])["result_type"]
    print(json.dumps({"rows": kinds.to_pylist().count("succeeded")}))


if __name__ == "__main__":
    main()
