"""The auditor: compares what was spent, as the program's table says, with the emulator's own bill."""

from __future__ import annotations

import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from batch_assets.emulator import Emulator

_PICODOLLARS = 10**12


@dataclass
class Audit:
    """What the auditor saw. Amounts are in picodollars.

    Attributes:
        batches: The number of accepted batches.
        exact: How many of these cost in the table exactly what they cost in the bill.
        billed: What the API charges for all of them.
        spent: What the table says of them.
        unknown: What was billed and is not in the table, but in the range of its rows of the kind `unknown`.
        unknown_requests: The number of the requests in these rows.
        differences: What does not agree, as text.
    """

    batches: int = 0
    exact: int = 0
    billed: int = 0
    spent: int = 0
    unknown: int = 0
    unknown_requests: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, other: Audit) -> None:
        """Add another audit."""
        for name in ("batches", "exact", "billed", "spent", "unknown", "unknown_requests"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.differences += other.differences

    def __str__(self) -> str:
        dollars = (Decimal(amount) / _PICODOLLARS for amount in (self.billed, self.spent, self.unknown))
        billed, spent, unknown = (f"${amount:f}" for amount in dollars)
        return (
            f"{self.batches:,} batches audited, {self.exact:,} of them exact: billed {billed}, in the table "
            f"{spent}, in the range of {self.unknown_requests:,} unknown requests {unknown}"
        )


def bill_of(emulator: Emulator, batch_id: str) -> list[dict[str, Any]]:
    """What each request of a batch costs, by the emulator's bill."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{emulator.url}/_emulator/batches/{batch_id}/bill") as answer:
        return [orjson.loads(line) for line in answer]


def audit(root: Path, emulator: Emulator, batch_ids: Iterable[str]) -> Audit:
    """Compare the table under a root with the bill of some batches, all of which are the root's.

    A stored answer has to cost exactly what it is billed, in each batch. What is billed and not stored has to be
    within the range of the batch's unknown requests, or of those of unseen batches.
    """
    seen = Audit()
    known: Counter[str] = Counter()
    high: defaultdict[str, int | None] = defaultdict(int)
    unknown: Counter[str] = Counter()
    for row in pq.read_table(root / "spend_batches.parquet").to_pylist():
        batch_id = row["batch_id"]
        if row["kind"] == "known":
            known[batch_id] += _whole(row["cost_usd"])
        else:
            unknown[batch_id] += row["requests"]
            before, more = high[batch_id], row["high_usd"]
            high[batch_id] = None if before is None or more is None else before + _whole(more)
    unseen = 0
    for batch_id in batch_ids:
        lines = bill_of(emulator, batch_id)
        billed, stored = sum(line["picodollars"] for line in lines), _stored(root, batch_id, lines)
        of_stored = sum(line["picodollars"] for line in stored)
        rest, most = billed - of_stored, high[batch_id]
        seen.batches += 1
        seen.exact += known[batch_id] == billed
        seen.billed, seen.spent, seen.unknown = (
            seen.billed + billed,
            seen.spent + known[batch_id],
            seen.unknown + rest,
        )
        seen.unknown_requests += unknown[batch_id]
        if known[batch_id] != of_stored:
            seen.differences.append(
                f"{batch_id}: {known[batch_id]} spent, {of_stored} billed for its stored answers"
            )
        unserved = [line for line in stored if not line["served"]]
        if unserved:
            seen.differences.append(f"{batch_id}: {len(unserved)} answers are stored that were never served")
        if batch_id not in known and batch_id not in unknown:
            unseen += billed  # an intent may have created it
        elif most is not None and rest > most:
            seen.differences.append(f"{batch_id}: {rest} billed beyond its answers, at most {most} expected")
    highs = [amount for batch_id, amount in high.items() if batch_id.startswith("intent-")]
    if None not in highs and unseen > sum(amount or 0 for amount in highs):
        seen.differences.append(f"{unseen} billed for batches that the table does not know")
    total = sum(_whole(cost) for cost in pq.read_table(root / "spend.parquet")["cost_usd"].to_pylist())
    if total != known.total():
        seen.differences.append(f"{total} in the table, {known.total()} in its batches")
    return seen


def audit_live(root: Path, calls: Sequence[Mapping[str, Any]]) -> Audit:
    """Compare the table under a root with the bill of its live calls. None of them may have been made twice.

    Args:
        root: The root.
        calls: The live calls that the API answered, all of which are the root's.
    """
    seen, known, high = Audit(), 0, Decimal(0)
    for row in pq.read_table(root / "spend_batches.parquet").to_pylist():
        if row["batch_id"].startswith("live."):
            known += _whole(row["cost_usd"])
            high += row["high_usd"] if row["kind"] == "unknown" else 0
            seen.unknown_requests += row["requests"] if row["kind"] == "unknown" else 0
    stored: set[str] = set()
    for path in root.glob("*/responses/live.*.parquet"):
        stored |= set(pq.read_table(path, columns=["message_id"])["message_id"].to_pylist())
    seen.billed, seen.spent = sum(call["picodollars"] for call in calls), known
    of_stored = sum(call["picodollars"] for call in calls if call["id"] in stored)
    seen.unknown = seen.billed - of_stored
    if known != of_stored:
        seen.differences.append(f"{known} spent on live calls, {of_stored} billed for their stored answers")
    if seen.unknown > _whole(high):
        seen.differences.append(f"{seen.unknown} billed for lost live calls, at most {high} expected")
    if twice := len(calls) - len({call["params"] for call in calls}):
        seen.differences.append(f"{twice} live calls were made twice")
    return seen


def _stored(root: Path, batch_id: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a batch's bill whose answers are stored. A file of responses has the order of the requests.

    An erased answer has another custom_id.
    """
    for path in root.glob(f"*/responses/{batch_id}.parquet"):
        kinds = pq.read_table(path, columns=["result_type"])["result_type"].to_pylist()
        return [line for line, kind in zip(lines, kinds, strict=True) if kind == "succeeded"]
    return []


def _whole(amount: Decimal) -> int:
    return int(amount * _PICODOLLARS)
