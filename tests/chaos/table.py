"""The campaign's table: one line for each kind of fault."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.auditor import Audit
from tests.chaos.judge import Verdict
from tests.documentation import PROJECT

PAGE = PROJECT / "docs/durability.md"

COLUMNS = ("fault", "times tried", "rows lost", "requests paid twice", "orphaned batches", "wrong amounts")


@dataclass
class Line:
    """One kind of fault.

    Attributes:
        passed_by: Trials that ended before the fault could strike. They are not counted as tried.
        audit: What was spent in its trials, compared with the bill.
        bad: What was wrong, with the position of the fault.
    """

    fault: str
    tried: int = 0
    lost: int = 0
    twice: int = 0
    orphaned: int = 0
    passed_by: int = 0
    audit: Audit = field(default_factory=Audit)
    bad: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict, where: str, faults: int) -> None:
        """Count a trial in which a number of faults struck."""
        self.tried += faults
        self.passed_by += faults == 0
        self.lost += verdict.lost
        self.twice += verdict.twice
        self.orphaned += verdict.orphaned
        self.audit.add(verdict.audit)
        if not verdict.good:
            self.bad.append(f"{self.fault}: {where}: {verdict}")

    def cells(self) -> tuple[str, ...]:
        numbers = (self.tried, self.lost, self.twice, self.orphaned, len(self.audit.differences))
        return (self.fault, *(f"{number:,}" for number in numbers))


def as_text(lines: Iterable[Line]) -> str:
    """The table for a terminal."""
    rows = [COLUMNS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    aligned = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def as_markdown(lines: Iterable[Line]) -> str:
    """The table for a page."""
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(line.cells() for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_table(page: str, lines: Iterable[Line]) -> str:
    """The page with this table in the place of the one that it has.

    Raises:
        LookupError: If the page has no table of a campaign.
    """
    match = re.search(rf"^\| {COLUMNS[0]} \|.*\n(?:\|.*\n)+", page, re.MULTILINE)
    if match is None:
        raise LookupError(f"{PAGE.name} has no table that begins with the column {COLUMNS[0]!r}")
    return page[: match.start()] + as_markdown(lines) + "\n" + page[match.end() :]
