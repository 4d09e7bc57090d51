"""What is outside of the protocol: gateways that retry or refuse, files that are damaged or away, odd values."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried, error, key_of, result_lines, rule, through
from tests.core.gateway import Answer, Forward, Gateway
from tests.core.support import BATCHES, CREATE, LIST

_HTML = "<html><h1>Blocked</h1></html>"
_SHAPED = {429: error("rate_limit_error", "slow down"), 400: error("invalid_request_error", "no"), 413: _HTML}
_FILES = {"batches": "part-*.jsonl", "collection": "part-*.jsonl", "results": "*.parquet"}
_FILES_SENT = 3
_ODD_USAGE = {"input_tokens": -1, "output_tokens": 1e30}


def cases() -> Iterator[Case]:
    for status, body in _SHAPED.items():
        for nth in (1, 2, 3):
            late = {"status": status, "body": body, "late": True, "headers": {"retry-after": "0.2"}}
            fault = "create: accepted, and a gateway shows a refusal of its retry"
            yield Case(fault, f"{status}, create {nth}", through([rule(CREATE, late, nth=nth)], one_by_one=True))
    for status in (302, 400, 401, 403, 404, 499):
        for call, name in ((CREATE, "create"), (LIST, "list")):
            page = rule(call, {"status": status, "body": _HTML}, nth=2)
            yield Case("a firewall, a captive portal", f"{status}, {name} 2", through([page]))
    for harm in (_garble, _cut, _take_away):
        for stage, pattern in (
            ("batches", "part-*.jsonl"),
            ("collection", "part-*.jsonl"),
            ("results", "*.parquet"),
        ):
            where = f"{harm.__name__.strip('_')}: one {pattern} before {stage}"
            yield Case("files damaged or away", where, partial(_harmed, stage=stage, pattern=pattern, harm=harm))
    for encoding, pack in _PACKED.items():
        where = f"{encoding}, {pack.__name__.strip('_')}"
        yield Case("results: compressed although no one asked", where, partial(_compressed, encoding, pack))
    for name, value in _ODD_USAGE.items():
        yield Case("results: odd values", name, partial(_odd_value, name=name, value=value))


def _garble(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"#" * 30 + content[70:])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def _take_away(path: Path) -> None:
    path.unlink()


def _harmed(bench: Bench, stage: str, pattern: str, harm: Callable[[Path], None]) -> Tried:
    """A file is harmed during one run of the stage, and is restored from a backup after it unless replaced."""
    with bench.trial(bench.prepared(stage), one_by_one=True) as trial:
        folder = trial.root / "asked" / ("responses" if pattern == "*.parquet" else "requests")
        path = min(folder.rglob(pattern))
        kept = path.read_bytes()
        harm(path)
        trial.run("tick")
        if not path.exists() or stage != "results":
            path.write_bytes(kept)
        return trial.finish(from_dataset=True), 1


def _whole(content: bytes) -> bytes:
    return gzip.compress(content)


def _a_member_for_each_line(content: bytes) -> bytes:
    return b"".join(gzip.compress(line + b"\n") for line in content.splitlines())


def _without_its_end(content: bytes) -> bytes:
    return gzip.compress(content)[:-9]


_PACKED = {"gzip": _a_member_for_each_line, "x-gzip": _whole, "GZIP": _without_its_end}


def _compressed(encoding: str, pack: Callable[[bytes], bytes], bench: Bench) -> Tried:
    """A gateway compresses the first results of each batch. Those that are cut count as incomplete."""
    struck = 0

    def packed(forward: Forward) -> Answer:
        nonlocal struck
        status, headers, content = forward()
        struck += 1
        return status, {**headers, "content-encoding": encoding}, pack(content)

    with bench.trial(bench.prepared("requests")) as trial, Gateway(bench.emulator.url) as gateway:
        trial.through(gateway.url)
        for _ in range(_FILES_SENT):
            gateway.on("GET", "/results", packed)
        return trial.finish(from_dataset=True), struck


def _odd_value(bench: Bench, name: str, value: Any) -> Tried:
    """One line of each batch has a value that no column can hold: these rows and no others are errored."""
    with bench.trial(bench.prepared("collection")) as trial:
        rules, odd = [], []
        for batch_id in trial.batches():
            lines = result_lines(bench, trial, batch_id)
            lines[7]["result"]["message"]["usage"][name] = value
            odd.append(key_of(lines[7]["custom_id"]))
            body = b"".join(orjson.dumps(line) + b"\n" for line in lines).decode()
            rules.append(rule(_results_of(batch_id), {"status": 200, "body": body}))
        ends = dict.fromkeys(odd, "errored/unreadable_result")
        with bench.faults(rules) as struck:
            return trial.finish(from_dataset=False, ends=ends), struck()


def _results_of(batch_id: str) -> dict[str, str]:
    return {"method": "GET", "path": f"{BATCHES}/{batch_id}/results"}
