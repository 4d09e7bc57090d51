"""The judge: an observer outside the program that sees the emulator's log, the files and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import sqlalchemy as sa

from batch_assets.emulator import Emulator, text_digest
from tests.chaos.auditor import Audit

_DIGEST_CHARACTERS = 22

Accepted = Mapping[str, list[str]]
"""Batch id -> the custom_ids it was accepted with."""
NOTHING: Mapping[str, str] = {}


@dataclass
class Verdict:
    """What a trial did to the data.

    Attributes:
        lost: Rows that are not in the results exactly once with their own answer.
        twice: Requests that the API accepted again although nothing called for it.
        orphaned: Accepted batches of ours that the ledger does not know.
        audit: What was spent, compared with the API's bill.
        problems: Everything else that is wrong, as text.
    """

    lost: int = 0
    twice: int = 0
    orphaned: int = 0
    audit: Audit = field(default_factory=Audit)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.twice or self.orphaned or self.audit.differences or self.problems)

    def __str__(self) -> str:
        counts = f"{self.lost} rows lost, {self.twice} requests paid twice, {self.orphaned} orphaned batches"
        return "; ".join([counts, *self.audit.differences, *self.problems])


def accepted_by(emulator: Emulator, workspace: str, since: int = 0) -> dict[str, list[str]]:
    """The custom_ids of each batch of a workspace, from the emulator's own log and the bodies that it keeps."""
    ids = [entry["id"] for entry in emulator.log()[since:] if entry["workspace"] == workspace]
    return {batch_id: _custom_ids(emulator.state / "bodies" / f"{batch_id}.json") for batch_id in ids}


def _custom_ids(body: Path) -> list[str]:
    return [request["custom_id"] for request in orjson.loads(body.read_bytes())["requests"]]


def judge(
    root: Path,
    pipeline: str,
    rows: Mapping[str, str],
    accepted: Accepted,
    *,
    ledger_url: str | None = None,
    ask_again: Collection[str] = (),
    ends: Mapping[str, str] = NOTHING,
    reported: bool = False,
) -> Verdict:
    """Compare the files under a root with what the API accepted.

    Args:
        rows: The dataset, row key -> text.
        accepted: Every batch of ours, whoever sent it.
        ledger_url: The URL of the ledger; `None` for that in the root.
        ask_again: Digests, as in custom_ids, that may be accepted once more: they failed for a passing reason.
        ends: See `rows_lost`.
        reported: Whether the fault may cost a batch that is paid twice, if the ledger reports it.
    """
    verdict = Verdict()
    ledger_url = ledger_url or f"sqlite:///{root}/ledger.db"
    verdict.lost = rows_lost(root / pipeline / "results" / "results.parquet", rows, ends)
    reported_batches = _batches(ledger_url, "paid_twice") if reported else set()
    paid, paid_again = _digests(accepted, reported_batches, without=True), _digests(accepted, reported_batches)
    verdict.twice = sum(max(0, times - 1 - (digest in ask_again)) for digest, times in paid.items())
    if untrue := paid_again.keys() - paid.keys():
        verdict.problems.append(f"{len(untrue)} requests are reported as paid twice, and were accepted once")
    verdict.orphaned = len(set(accepted) - _batches(ledger_url, "file_id is not null"))
    leftovers = sorted(str(path.relative_to(root)) for path in root.rglob("*.tmp"))
    if leftovers:
        verdict.problems.append(f"left over: {', '.join(leftovers)}")
    return verdict


def _digests(accepted: Accepted, batches: Collection[str], *, without: bool = False) -> Counter[str]:
    """How often each digest was accepted in these batches, or in all others."""
    chosen = (ids for batch, ids in accepted.items() if (batch in batches) != without)
    return Counter(custom_id[-_DIGEST_CHARACTERS:] for ids in chosen for custom_id in ids)


def rows_lost(results: Path, rows: Mapping[str, str], ends: Mapping[str, str] = NOTHING) -> int:
    """Count the rows that are not in a table exactly once as they should be, and the rows too many.

    A row should have its own answer, unless `ends` names another end for it.

    Args:
        ends: The expected end by row key: the result_type, or for an error result_type/error_type.
    """
    if not results.exists():
        return len(rows)
    counts: Counter[str] = Counter()
    right: set[str] = set()
    columns = ["id", "result_type", "response_text", "error_type"]
    for row in pq.read_table(results, columns=columns).to_pylist():
        counts[row["id"]] += 1
        # The emulator's answer names the text that it answers.
        own = f"to text {text_digest(rows.get(row['id'], ''))}:"
        end = f"{row['result_type']}/{row['error_type']}" if row["error_type"] else row["result_type"]
        if end == ends.get(row["id"], "succeeded") and (end != "succeeded" or own in row["response_text"]):
            right.add(row["id"])
    return sum(counts[key] != 1 or key not in right for key in rows) + len(counts.keys() - rows.keys())


def same_table(first: Path, second: Path) -> bool:
    """Whether two tables hold the same rows in the same order."""
    return first.exists() and second.exists() and pq.read_table(first).equals(pq.read_table(second))


def _batches(ledger_url: str, which: str) -> set[str]:
    engine = sa.create_engine(ledger_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return set(connection.execute(sa.text(f"select id from batch where {which}")).scalars())
