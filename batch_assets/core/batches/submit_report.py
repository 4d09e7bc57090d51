"""The report of one run of the batches stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from batch_assets.core.batches.cancel import CancelReport
from batch_assets.core.batches.pilot import PilotReport
from batch_assets.core.remedies import Remedy
from batch_assets.core.text import count


@dataclass
class LiveCallCounts:
    """What became of the live calls of a run.

    Attributes:
        answered: The number with an answer.
        refused: The number that the API refused. Their requests stay with the batch.
        lost: The number whose reply was lost. They may have been paid for, and are not repeated.
    """

    answered: int = 0
    refused: int = 0
    lost: int = 0

    def __bool__(self) -> bool:
        return bool(self.answered or self.refused or self.lost)

    def __str__(self) -> str:
        made = self.answered + self.refused + self.lost
        others = {"refused": self.refused, "lost, and perhaps paid for": self.lost}
        return ", ".join(
            [
                f"{count(made, 'live call')}: {self.answered:,} answered",
                *(f"{number:,} {what}" for what, number in others.items() if number),
            ]
        )


@dataclass
class SubmitReport:
    """Report of one run of the batches stage.

    Attributes:
        submitted: Ids of the batches that were submitted, or found to be ours, in this run.
        planned_again: The number of retries and follow-ups that were written into new request files.
        waiting: Ids of the files left for later -> why. The key "retries" says why requests cannot be sent
            again because a file is missing.
        refused: Ids of the files that the API refused -> its error.
        given_up: Ids of files with a single request that is too large for the API -> its error. The row is
            errored.
        remedies: What the user can do about what waits.
        pilots: What became of pilots that were judged.
        live_calls: What became of the live calls that were made.
    """

    submission_id: str
    submitted: list[str] = field(default_factory=list)
    planned_again: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    remedies: list[Remedy] = field(default_factory=list)
    pilots: list[PilotReport] = field(default_factory=list)
    live_calls: LiveCallCounts = field(default_factory=LiveCallCounts)

    def add(self, file_report: SubmitReport) -> None:
        """Add what became of one of its files."""
        self.submitted += file_report.submitted
        self.waiting |= file_report.waiting
        self.refused |= file_report.refused
        self.given_up |= file_report.given_up
        self.remedies += [remedy for remedy in file_report.remedies if remedy not in self.remedies]

    def left_by(self, cancel: CancelReport, name: str) -> None:
        """Note what a cancel did not reach.

        Args:
            cancel: What the cancel did.
            name: The key in `waiting` of the reasons why batches could not be canceled.
        """
        self.waiting |= cancel.in_doubt
        if cancel.problems:
            self.waiting[name] = "; ".join(cancel.problems)
        self.remedies += cancel.remedies
