"""The report of one run of the batches stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from batch_assets.core.batches.cancel import CancelReport
from batch_assets.core.batches.pilot import PilotReport
from batch_assets.core.remedies import Remedy


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
    """

    submission_id: str
    submitted: list[str] = field(default_factory=list)
    planned_again: int = 0
    waiting: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    remedies: list[Remedy] = field(default_factory=list)
    pilots: list[PilotReport] = field(default_factory=list)

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
