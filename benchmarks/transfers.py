"""`python -m benchmarks.transfers`: several uploads and downloads at a time, compared with one.

The same dataset goes through all stages in processes of their own, in turn with BATCH_ASSETS_TRANSFERS=1 and with
the default: over a link with a limited speed for each connection, over plain loopback, and over plain loopback in
one batch. Seconds of the stages `batches` and `results` and peak memory are medians; ratios are taken within each
round. MB are millions of bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.contender import Stages
from benchmarks.workload import POLL_SECONDS, params_for

_CHUNK = 1 << 14
_TEXT_CHARACTERS = 800
_STAGES = ("batches", "results")
Run = dict[str, dict[str, float]]


@contextmanager
def link(target: str, bytes_per_second: float, latency: float) -> Iterator[str]:
    """A route to a server on which every connection has a limited speed in each direction.

    Args:
        latency: Seconds that it takes when the other side begins to send.
    """
    host, port = target.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def carry(source: socket.socket, sink: socket.socket, last: list[socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                turned, last[0] = last[0] is not source, source
                time.sleep(len(chunk) / bytes_per_second + (latency if turned else 0.0))
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                last = [server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=carry, args=(*ends, last), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def run_once(folder: Path, max_requests: int) -> Run:
    """Run all stages in this process, with the environment's settings."""
    import anthropic  # noqa: F401  imported before the clock starts

    attributes = {
        "name": "bench",
        "dataset": {"path": "rows.jsonl", "key": "id"},
        "batching": {"max_requests": max_requests},
        "params": params_for(),
    }
    stages = Stages()
    with open_root(Settings.from_env()) as root:
        build_requests(root, load_pipeline(attributes, folder=folder))
        with stages.time("batches"):
            submit_batches(root, "bench")
        while poll(root, now=True).calls:
            time.sleep(POLL_SECONDS)
        with stages.time("results"):
            done = collect_results(root, "bench")
        if done.results is None or not done.results.final or done.problems:
            sys.exit(f"the results are not complete: {done.problems}")
    return stages.seen


def in_process(url: str, folder: Path, max_requests: int, transfers: int | None) -> Run:
    """Run them in a process and a root of their own."""
    with tempfile.TemporaryDirectory() as root:
        env = os.environ | {"BATCH_ASSETS_EMULATOR": url, "BATCH_ASSETS_ROOT": root}
        env |= {"BATCH_ASSETS_TRANSFERS": str(transfers)} if transfers else {}
        command = [sys.executable, "-m", "benchmarks.transfers", "--child", str(folder), str(max_requests)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    figures: Run = json.loads(done.stdout)
    return figures


def compare(name: str, url: str, folder: Path, max_requests: int, rounds: int) -> None:
    """Print a line for each stage."""
    pairs = []
    for number in range(rounds):
        order = [1, None] if number % 2 else [None, 1]
        runs = {transfers: in_process(url, folder, max_requests, transfers) for transfers in order}
        pairs.append((runs[1], runs[None]))
    for stage in _STAGES:
        single, several = ([pair[at][stage] for pair in pairs] for at in (0, 1))
        ratios = [a["wall"] / b["wall"] for a, b in zip(single, several, strict=True)]
        print(
            f"{name:12}{stage:10}"
            + "".join(f"{statistics.median(run['wall'] for run in runs):9.2f}" for runs in (single, several))
            + f"{statistics.median(ratios):8.2f}{f'{min(ratios):.2f}-{max(ratios):.2f}':>12}"
            + "".join(f"{statistics.median(run['peak_mb'] for run in runs):9.0f}" for runs in (single, several)),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transfers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=80_000)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--mb", type=float, default=5.0, help="a second for each connection of the link")
    parser.add_argument("--latency", type=float, default=0.05, help="of the link, seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, max_requests = options.child
        print(json.dumps(run_once(Path(folder), int(max_requests))))
        return
    each = -(-options.rows // options.batches) + options.batches // 2  # each holds one fewer than the one before
    with tempfile.TemporaryDirectory() as folder, Emulator(latency=0.0) as emulator:
        with (Path(folder) / "rows.jsonl").open("wb") as rows:
            for number in range(options.rows):
                text = f"{number} asks ".ljust(_TEXT_CHARACTERS, "x")
                rows.write(orjson.dumps({"id": number, "text": text}) + b"\n")
        print(
            f"{options.rows:,} rows in {options.batches} batches, {options.rounds} rounds; the link has "
            f"{options.mb:g} MB/s a connection and {options.latency:g} s latency\n\n{'':22}{'1':>9}"
            f"{Settings.transfers:9d}{'ratio':>8}{'min-max':>12}{'MB':>9}{'MB':>9}"
        )
        with link(emulator.url, options.mb * 1e6, options.latency) as slow:
            compare("link", slow, Path(folder), each, options.rounds)
        compare("loopback", emulator.url, Path(folder), each, options.rounds)
        compare("one batch", emulator.url, Path(folder), 100_000, options.rounds)


if __name__ == "__main__":
    main()
