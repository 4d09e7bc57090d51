"""The findings about tables that a run does not read: those of the other partitions, from the ledger.

Numbers are recorded, and no texts of the findings: these may quote rows, which an erasure would have to find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from batch_assets.core.ledger import Transaction
from batch_assets.core.ledger.examinations import KnownTable, known_tables, note_examined
from batch_assets.core.results.causes import Causes
from batch_assets.core.results.examine import Examination
from batch_assets.core.text import count


def note(tx: Transaction, pipeline: str, partition: str, table: Examination) -> None:
    """Record what a run found in the table of a partition."""
    numbers: dict[str, Any] = {
        "rows": table.rows,
        "expected_rows": table.expected_rows,
        "counts": dict(table.counts),
        "invalid": table.invalid.total(),
        "unexpected": table.unexpected.total(),
        "stopped": dict(table.stopped),
        "misplaced": len(table.misplaced),
        "columns": table.columns,
    }
    note_examined(tx, pipeline, partition, numbers)


def others(tx: Transaction, pipeline: str, partitions: Collection[str]) -> dict[str, Examination]:
    """Return the findings about the tables of partitions that are not examined in this run, by partition."""
    return {table.partition: _restored(table) for table in known_tables(tx, pipeline, partitions)}


def _restored(known: KnownTable) -> Examination:
    numbers = known.examined
    if numbers is None:  # written by a run without checks, such as one of the command line
        return Examination(
            rows=sum(known.counts.values()),
            counts=Counter(known.counts),
            expected_rows=known.rows,
            in_flight=known.in_flight,
            retried=known.retried,
        )
    misplaced = int(numbers["misplaced"])
    return Examination(
        rows=numbers["rows"],
        counts=Counter(numbers["counts"]),
        invalid=Causes(numbers["invalid"]),
        unexpected=Causes(numbers["unexpected"]),
        stopped=Counter(numbers["stopped"]),
        expected_rows=numbers["expected_rows"],
        misplaced=[f"{count(misplaced, 'problem')}, see the run of the partition"] if misplaced else [],
        columns=list(numbers["columns"]),
        in_flight=known.in_flight,
        retried=known.retried,
    )
