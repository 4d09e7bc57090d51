"""What a table of results must hold, according to its dataset and to what the emulator saw."""

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
    """The outcome of a comparison.

    Attributes:
        figures: By name, in the order in which they are printed.
        mismatches: Each as text.
    """

    figures: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)

    def equal(self, subject: str, actual: Any, expected: Any) -> None:
        """Record a mismatch if two values differ."""
        if actual != expected:
            self.differ(subject, actual, expected)

    def differ(self, subject: str, actual: Any, expected: Any) -> None:
        """Record a mismatch."""
        self.mismatches.append(f"{subject}: {_short(actual)} in place of {_short(expected)}")

    def print(self) -> None:
        """Print one line for each figure, then the first mismatches."""
        for name, figure in [*self.figures.items(), ("mismatches", len(self.mismatches))]:
            print(f"{name:32}{figure:12,}")
        for mismatch in self.mismatches[:_SHOWN]:
            print(f"  {mismatch}")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"


@dataclass(frozen=True)
class Expected:
    """What a dataset holds, and what must be sent for it.

    Attributes:
        key: The name of the row key.
        rows: In order, with the row key.
        request: Returns the params of a row. Raises ValueError with the reason if it must be rejected.
    """

    key: str
    rows: list[Row]
    request: Callable[[Row], dict[str, Any]]

    def compare(self, table: pa.Table, received: Received) -> Findings:
        """Compare a table of results, and what the emulator saw, with the dataset."""
        findings = Findings()
        names = dict.fromkeys([self.key, *(name for row in self.rows for name in row if name != "bytes")])
        findings.equal("columns", table.column_names[: len(names)], list(names))
        findings.equal("rows", len(table), len(self.rows))
        if findings.mismatches:
            return findings
        findings.figures["rows"] = len(self.rows)
        expected = set()
        for row, result in zip(self.rows, _python_rows(table), strict=True):
            where = f"row {row[self.key]!a}"
            for name in names:
                if not alike(row.get(name), result[name]):
                    findings.differ(f"{where}, column {name!r}", result[name], row.get(name))
            try:
                request = self.request(row)
            except ValueError as reason:
                findings.figures[f"rejected, {reason}"] += 1
                findings.equal(f"{where}, result_type", result["result_type"], "rejected")
                findings.equal(f"{where}, error_type", result["error_type"], str(reason))
                findings.equal(f"{where}, response_text", result["response_text"], None)
                findings.equal(f"{where}, has a reason", bool(result["error_message"]), True)
                continue
            findings.equal(f"{where}, result_type", result["result_type"], "succeeded")
            body = json.dumps(request)  # keys in order
            findings.equal(f"{where}, request", json.dumps(received.params.get(result["custom_id"])), body)
            expected.add(body)
            _compare_answer(findings, where, result, received)
        findings.figures["distinct requests"] = len(received.params)
        findings.figures["bytes received"] = received.bytes
        findings.figures["bytes answered"] = sum(map(len, received.lines.values()))
        findings.equal("distinct requests", received.requests, len(expected))
        return findings


def _python_rows(table: pa.Table) -> Iterator[Row]:
    for batch in table.to_batches(4096):
        yield from batch.to_pylist()


def _compare_answer(findings: Findings, where: str, result: Row, received: Received) -> None:
    """Compare the table's columns of a succeeded row with the line that the emulator answered."""
    custom_id, raw = result["custom_id"], result["response_json"]
    if custom_id not in received.params or raw is None:
        findings.mismatches.append(f"{where}: nothing was received for {custom_id}, or no answer is kept")
        return
    line = f'{{"custom_id":"{custom_id}","result":{{"type":"succeeded","message":{raw}}}}}'
    findings.equal(f"{where}, response_json", line.encode(), received.lines.get(custom_id))
    message, answer = json.loads(raw), emulated_answer(received.params[custom_id])
    findings.equal(f"{where}, content", message["content"], answer["content"])
    findings.equal(f"{where}, response_text", result["response_text"], answer["content"][-1]["text"])
    columns = {"stop_reason": "stop_reason", "response_model": "model", "message_id": "id"}
    for column, name in columns.items():
        findings.equal(f"{where}, {column}", result[column], message[name])
    if result["shared_with"] is None:
        for name in ("input_tokens", "output_tokens"):
            findings.equal(f"{where}, {name}", result[name], answer["usage"][name])


class Received:
    """What an emulator received in some batches, from the bodies it stored, and the lines that it answers.

    Attributes:
        params, lines: By custom_id.
        requests: How many there are, counting those that have the same custom_id.
        bytes: The size of the bodies.
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
