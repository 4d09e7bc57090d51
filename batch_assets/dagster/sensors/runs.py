"""What Dagster knows of the runs that the sensor asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import takewhile

import dagster as dg

from batch_assets.core.ledger.rounds import ROUND_SECONDS
from batch_assets.dagster import keys

# A run that Dagster does not know this long after its round was opened was never launched: the tick died.
_LAUNCH_SECONDS = 120.0
# Rounds whose runs fail follow each other ever more slowly, up to this.
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
        """Whether a round is over although nobody closed it: its run ended early, or never began.

        Args:
            name: of the round, see rounds.name_of.
            age: seconds since it was opened.
        """
        of_round = [found for found in self.newest if found.dagster_run.tags.get(keys.ROUND) == name]
        if not of_round:
            return age > _LAUNCH_SECONDS
        return not any(_is_at_work(found) for found in of_round)

    def back_off(self) -> float:
        """Seconds to leave between rounds, because the last runs failed."""
        runs = (found.dagster_run for found in self.newest)
        failed = len(list(takewhile(lambda run: run.status == dg.DagsterRunStatus.FAILURE, runs)))
        return min(_FIRST_BACK_OFF * 2 ** (failed - 1), _LAST_BACK_OFF) if failed else 0.0


def _is_at_work(found: dg.RunRecord) -> bool:
    """Whether a run waits for its turn or works. One that is long past its time limit was killed with its host,
    where nothing watches runs.
    """
    if found.dagster_run.is_finished:
        return False
    return found.start_time is None or time.time() - found.start_time < ROUND_SECONDS
