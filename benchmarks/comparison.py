"""What a table of results must hold, by the dataset it was made of and by what the emulator saw."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from batch_assets.emulator import Emulator, emulated_answer
from benchmarks.plain_rows import Row, alike

_SHOWN = 20


@dataclass
class Findings:
    """What a comparison has found.

    Attributes:
        figures: by name, in the order in which they are printed.
        mismatches: each in words.
    """

    figures: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)

    def equal(self, what: str, found: Any, expected: Any) -> None:
        """Notes a mismatch."""
        if found != expected:
            self.differ(what, found, expected)

    def differ(self, what: str, found: Any, expected: Any) -> None:
        """Notes one that was found otherwise."""
        self.mismatches.append(f"{what}: {_short(found)} in place of {_short(expected)}")

    def print(self) -> None:
        """One line a figure, then the first mismatches."""
        for name, figure in [*self.figures.items(), ("mismatches", len(self.mismatches))]:
            print(f"{name:32}{figure:12,}")
        for mismatch in self.mismatches[:_SHOWN]:
            print(f"  {mismatch}")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"


@dataclass(frozen=True)
class Expected:
    """What stands in a dataset, and what must be sent for it.

    Attributes:
        key: the row key.
        rows: in order, the row key included.
        request: a row -> its params. Raises ValueError with the reason of one that must be rejected.
    """

    key: str
    rows: list[Row]
    request: Callable[[Row], dict[str, Any]]

    def compare(self, table: pa.Table, received: Received) -> Findings:
        """Holds a table of results and what the emulator saw against what stands in the dataset."""
        findings = Findings()
        names = dict.fromkeys([self.key, *(name for row in self.rows for name in row if name != "bytes")])
        findings.equal("columns", table.column_names[: len(names)], list(names))
        findings.equal("rows", len(table), len(self.rows))
        if findings.mismatches:
            return findings
        findings.figures["rows"] = len(self.rows)
        wanted = set()
        for row, found in zip(self.rows, _python_rows(table), strict=True):
            where = f"row {row[self.key]!a}"
            for name in names:
                if not alike(row.get(name), found[name]):
                    findings.differ(f"{where}, column {name!r}", found[name], row.get(name))
            try:
                request = self.request(row)
            except ValueError as reason:
                findings.figures[f"rejected, {reason}"] += 1
                findings.equal(f"{where}, result_type", found["result_type"], "rejected")
                findings.equal(f"{where}, error_type", found["error_type"], str(reason))
                findings.equal(f"{where}, response_text", found["response_text"], None)
                findings.equal(f"{where}, has a reason in words", bool(found["error_message"]), True)
                continue
            findings.equal(f"{where}, result_type", found["result_type"], "succeeded")
            body = json.dumps(request)  # with the order of its keys
            findings.equal(f"{where}, request", json.dumps(received.params.get(found["custom_id"])), body)
            wanted.add(body)
            _compare_answer(findings, where, found, received)
        findings.figures["distinct requests"] = len(received.params)
        findings.figures["bytes received"] = received.bytes
        findings.figures["bytes answered"] = sum(map(len, received.lines.values()))
        findings.equal("distinct requests", received.requests, len(wanted))
        return findings


def _python_rows(table: pa.Table) -> Iterator[Row]:
    for batch in table.to_batches(4096):
        yield from batch.to_pylist()


def _compare_answer(findings: Findings, where: str, found: Row, received: Received) -> None:
    """Holds what a table says of a succeeded row against the line that the emulator answered."""
    custom_id, raw = found["custom_id"], found["response_json"]
    if custom_id not in received.params or raw is None:
        findings.mismatches.append(f"{where}: nothing was received for {custom_id}, or no answer is kept")
        return
    line = f'{{"custom_id":"{custom_id}","result":{{"type":"succeeded","message":{raw}}}}}'
    findings.equal(f"{where}, response_json", line.encode(), received.lines.get(custom_id))
    message, answer = json.loads(raw), emulated_answer(received.params[custom_id])
    findings.equal(f"{where}, content", message["content"], answer["content"])
    findings.equal(f"{where}, response_text", found["response_text"], answer["content"][-1]["text"])
    columns = {"stop_reason": "stop_reason", "response_model": "model", "message_id": "id"}
    for column, name in columns.items():
        findings.equal(f"{where}, {column}", found[column], message[name])
    if found["shared_with"] is None:
        for name in ("input_tokens", "output_tokens"):
            findings.equal(f"{where}, {name}", found[name], answer["usage"][name])


class Received:
    """What an emulator received in some batches, from its stored bodies, and the lines that it answers.

    Attributes:
        params, lines: by custom_id.
        requests: how many, with those that have a custom_id in common.
        bytes: of the bodies.
    """

    def __init__(self, emulator: Emulator, batches: list[str]) -> None:
        self.params: dict[str, Any] = {}
        self.lines: dict[str, bytes] = {}
        self.requests = self.bytes = 0
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for batch in batches:
            body = (emulator.state / "bodies" / f"{batch}.json").read_bytes()
            self.bytes += len(body)
            for request in json.loads(body)["requests"]:
                self.requests += 1
                self.params[request["custom_id"]] = request["params"]
            url = f"{emulator.url}/v1/messages/batches/{batch}/results"
            with opener.open(urllib.request.Request(url, headers={"x-api-key": "any"})) as answer:
                for line in answer.read().split(b"\n")[:-1]:
                    self.lines[json.loads(line)["custom_id"]] = line
