"""What Dagster knows about the runs that the sensor requested."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import takewhile

import dagster as dg

from batch_assets.core.ledger.rounds import ROUND_SECONDS
from batch_assets.dagster import keys

# If Dagster does not know a run this long after its round was opened, it was never launched: the tick was killed.
_LAUNCH_SECONDS = 120.0
# Pause between rounds while their runs fail: it doubles from the first value to the last.
_FIRST_BACK_OFF, _LAST_BACK_OFF = 60.0, 900.0
_READ = 10


@dataclass(frozen=True)
class RunsOfSubmission:
    """The newest runs of one submission, newest first."""

    newest: list[dg.RunRecord]

    @classmethod
    def read(cls, instance: dg.DagsterInstance, submission_id: str) -> RunsOfSubmission:
        filters = dg.RunsFilter(tags={keys.SUBMISSION: submission_id})
        return cls(list(instance.get_run_records(filters, limit=_READ)))

    def is_over(self, name: str, age: float) -> bool:
        """Return whether a round is over although no run closed it: its run ended early, or never began.

        Args:
            name: Name of the round, see `rounds.name_of`.
            age: Seconds since the round was opened.
        """
        of_round = [record for record in self.newest if record.dagster_run.tags.get(keys.ROUND) == name]
        if not of_round:
            return age > _LAUNCH_SECONDS
        return not any(_is_at_work(record, age) for record in of_round)

    def back_off(self) -> float:
        """Return the seconds to wait between rounds because the last runs failed; 0 if they did not."""
        runs = (record.dagster_run for record in self.newest)
        failed = len(list(takewhile(lambda run: run.status == dg.DagsterRunStatus.FAILURE, runs)))
        return min(_FIRST_BACK_OFF * 2 ** (failed - 1), _LAST_BACK_OFF) if failed else 0.0


def _is_at_work(record: dg.RunRecord, age: float) -> bool:
    """Return whether a run is queued or running.

    A run that is long past its time limit was killed with its host, on an instance without run monitoring.

    Args:
        record: The run.
        age: Seconds since its round was opened. No step of the wall clock changes them.
    """
    if record.dagster_run.is_finished:
        return False
    # A run may wait in the queue, so its own start counts too, unless the wall clock was set back since.
    return record.start_time is None or age < ROUND_SECONDS or 0 <= time.time() - record.start_time < ROUND_SECONDS
