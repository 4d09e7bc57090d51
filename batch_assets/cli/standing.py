"""What a submission waits on, as the ledger has it at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.ledger import batches, standstills, submissions
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.ledger.standstills import Standstill
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, BatchState, FileState
from batch_assets.core.root import Root

# The longest time between two looks at the ledger: another process may have moved things on.
LONGEST_NAP = 5.0


@dataclass(frozen=True)
class Standing:
    """What a submission waits on, at one moment.

    Attributes:
        files: the request files it waits on.
        batches: the batches of these files that are not collected yet.
        now: the ledger's clock.
        standstill: what keeps its failed requests from being asked again, None where nothing does.
    """

    submission: Submission
    files: list[RequestFile]
    batches: list[Batch]
    now: float
    standstill: Standstill | None

    @classmethod
    def read(cls, root: Root, pipeline: str, partition: str) -> Standing:
        with root.ledger.read() as tx:
            submission = submissions.newest(tx, pipeline, partition)
            assert submission is not None, "the run has built one"
            files = submissions.waited_on(tx, submission.id)
            wanted = {file.batch_id for file in files}
            alive = batches.in_state(tx, *BATCHES_UNCOLLECTED, pipeline=pipeline)
            mine = [batch for batch in alive if batch.id in wanted]
            standstill = standstills.current(tx, submission.id) if submission.ask_again else None
            return cls(submission, files, mine, tx.now, standstill)

    @property
    def ended(self) -> list[Batch]:
        """Batches whose answers can be had now."""
        ended = [batch for batch in self.batches if batch.state is BatchState.ENDED]
        return [batch for batch in ended if batch.next_poll_at <= self.now]

    @property
    def pending_files(self) -> list[RequestFile]:
        """Files that may still bring answers without a person's help."""
        lost = {batch.id for batch in self.batches if batch.state is BatchState.UNREACHABLE}
        moving = (file for file in self.files if file.state.in_flight and not file.state.needs_person)
        return [file for file in moving if file.batch_id not in lost]

    @property
    def unjoined(self) -> list[RequestFile]:
        """Files whose answers came in after the last join, whoever's that was."""
        joined = self.submission.joined_seq or 0
        return [file for file in self.files if (file.collected_seq or 0) > joined]

    @property
    def is_stuck(self) -> bool:
        """Rows are without an answer, and nothing is under way that could bring one."""
        again = self.submission.ask_again and self.standstill is None
        under_way = self.pending_files or self.ended or self.unjoined or again
        return self.submission.final_at is None and not under_way

    def next_look(self) -> float:
        """When something may have changed, by the ledger's clock."""
        ended = self.ended
        times = [batch.next_poll_at for batch in self.batches if batch not in ended]
        ready = [file for file in self.files if file.state is FileState.READY]
        times += [file.not_before for file in ready if file.not_before > self.now]
        return min(times, default=self.now + LONGEST_NAP)
