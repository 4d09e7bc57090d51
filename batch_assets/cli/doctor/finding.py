"""What one check found, as one line."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum

from batch_assets.core.quoting import printable


class Mark(StrEnum):
    """The first word of a line."""

    OK = "ok"
    WRONG = "wrong"
    SKIPPED = "skipped"
    """It cannot be checked, because of something else that is wrong or that does not exist yet."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        mark: Whether it is as it must be.
        concern: What was checked, in one word.
        text: What is there; for what is wrong also what to change.
    """

    mark: Mark
    concern: str
    text: str

    def __str__(self) -> str:
        return f"{self.mark:<8} {self.concern:<12} {printable(' '.join(self.text.split()))}"


Findings = Iterator[Finding]
"""What checks yield, as soon as each is done."""
RootFindings = Generator[Finding, None, bool]
"""The same of the root; they return whether it answers."""


def ok(concern: str, text: str) -> Finding:
    """Make the finding of a check that found what must be."""
    return Finding(Mark.OK, concern, text)


def wrong(concern: str, problem: str, change: str = "") -> Finding:
    """Make the finding of a check that found a problem.

    Args:
        concern: What was checked.
        problem: What is wrong, as a sentence without its period.
        change: The line to write or the command to run; "" if the problem names it.
    """
    return Finding(Mark.WRONG, concern, f"{problem}: {change}" if change else problem)


def skipped(concern: str, why: str) -> Finding:
    """Make the finding of a check that was not done."""
    return Finding(Mark.SKIPPED, concern, why)
