"""What Dagster knows of the runs that the sensor asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

import dagster as dg

from batch_assets.dagster import keys

# A run that Dagster does not know this long after its round was opened was never launched: the tick died.
_LAUNCH_SECONDS = 120.0
# Rounds whose runs fail follow each other ever more slowly, up to this.
_FIRST_BACK_OFF, _LAST_BACK_OFF = 60.0, 900.0
_READ = 10


@dataclass(frozen=True)
class RunsOfSubmission:
    """The newest runs of one submission, newest first."""

    newest: list[dg.DagsterRun]

    @classmethod
    def read(cls, instance: dg.DagsterInstance, submission_id: str) -> RunsOfSubmission:
        filters = dg.RunsFilter(tags={keys.SUBMISSION: submission_id})
        return cls(list(instance.get_runs(filters, limit=_READ)))

    def is_over(self, number: int, age: float) -> bool:
        """Whether a round is over although nobody closed it: its run ended early, or never began."""
        of_round = [run for run in self.newest if run.tags.get(keys.ROUND) == str(number)]
        if not of_round:
            return age > _LAUNCH_SECONDS
        return all(run.is_finished for run in of_round)

    def back_off(self) -> float:
        """Seconds to leave between rounds, because the last runs failed."""
        failed = len(list(takewhile(lambda run: run.status == dg.DagsterRunStatus.FAILURE, self.newest)))
        return min(_FIRST_BACK_OFF * 2 ** (failed - 1), _LAST_BACK_OFF) if failed else 0.0
