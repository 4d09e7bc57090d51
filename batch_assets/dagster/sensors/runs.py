"""What Dagster knows about the runs that the sensor requested."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TypeVar

import dagster as dg

from batch_assets.core.ledger.rounds import ROUND_SECONDS, LastRound
from batch_assets.dagster import keys
from batch_assets.dagster.rounds import name_of

# If Dagster does not know a run this long after its round was opened, it was never launched: the tick was killed.
_LAUNCH_SECONDS = 120.0
# Pause between rounds while their runs fail: it doubles from the first value to the last.
_FIRST_BACK_OFF, _LAST_BACK_OFF = 60.0, 900.0
# The runs of a submission that are read to see how many of the newest failed.
_READ = 10
# Values of a tag in one statement.
_AT_ONCE = 200
# Characters of a run's id on Dagster's pages.
_SHOWN_OF_ID = 8
Value = TypeVar("Value")
_NOT_BEGUN = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING)


class OpenRuns:
    """The runs of rounds that are open.

    Args:
        records: The runs.
    """

    def __init__(self, records: Iterable[dg.RunRecord]) -> None:
        self._by_round: dict[tuple[str, str], list[dg.RunRecord]] = {}
        for record in records:
            tags = record.dagster_run.tags
            round_ = tags.get(keys.SUBMISSION, ""), tags.get(keys.ROUND, "")
            self._by_round.setdefault(round_, []).append(record)

    @classmethod
    def read(cls, instance: dg.DagsterInstance, rounds: Collection[LastRound]) -> OpenRuns:
        """Read the runs of rounds, hundreds of runs with each statement."""
        named = sorted({_name(last) for last in rounds})
        return cls(
            record
            for chunk in _chunks(named)
            for record in instance.get_run_records(
                dg.RunsFilter(
                    tags={
                        keys.SUBMISSION: sorted({leader for leader, _ in chunk}),
                        keys.ROUND: sorted({name for _, name in chunk}),
                    }
                )
            )
        )

    def is_over(self, last: LastRound, age: float) -> bool:
        """Return whether a round is over although no run closed it: its run ended early, or never began.

        Args:
            last: The round.
            age: Seconds since the round was opened.
        """
        of_round = self._by_round.get(_name(last), [])
        if not of_round:
            return age > _LAUNCH_SECONDS
        return not any(_is_at_work(record, age) for record in of_round)

    def waiting(self, rounds: Iterable[LastRound], now: float) -> int:
        """Return how many runs of some rounds are not over and have not begun."""
        return sum(
            all(record.dagster_run.status in _NOT_BEGUN for record in self._by_round.get(_name(last), []))
            for last in {_name(last): last for last in rounds}.values()
            if not self.is_over(last, now - last.opened_at)
        )


class Failures:
    """How often the newest runs of submissions failed in a row.

    Args:
        records: Their newest runs, newest first.
    """

    def __init__(self, records: Iterable[dg.RunRecord]) -> None:
        by_leader: dict[str, list[dg.DagsterRun]] = {}
        for record in records:
            by_leader.setdefault(record.dagster_run.tags[keys.SUBMISSION], []).append(record.dagster_run)
        self._failed = {
            leader: [run.run_id for run in takewhile(lambda run: run.status == dg.DagsterRunStatus.FAILURE, runs)]
            for leader, runs in by_leader.items()
        }

    @classmethod
    def read(cls, instance: dg.DagsterInstance, rounds: Iterable[LastRound]) -> Failures:
        """Read the newest runs of the submissions that led rounds."""
        leaders = sorted({last.leader for last in rounds})
        return cls(
            record
            for chunk in _chunks(leaders)
            for record in instance.get_run_records(
                dg.RunsFilter(tags={keys.SUBMISSION: list(chunk)}), limit=_READ * len(chunk)
            )
        )

    def of(self, last: LastRound) -> int:
        """Return how many of the newest runs of the submission that led a round failed in a row."""
        return len(self._failed.get(last.leader, ()))

    def as_text(self, last: LastRound) -> str:
        """Return that the last runs failed, with the newest of them as Dagster's pages name it."""
        failed = self._failed[last.leader]
        runs = "last run" if len(failed) == 1 else f"last {len(failed)} runs"
        return f"its {runs} failed (see run {failed[0][:_SHOWN_OF_ID]})"

    def back_off(self, last: LastRound) -> float:
        """Return the seconds to wait after a round because the last runs failed; 0 if they did not."""
        failed = self.of(last)
        return min(_FIRST_BACK_OFF * 2 ** (failed - 1), _LAST_BACK_OFF) if failed else 0.0


def _name(last: LastRound) -> tuple[str, str]:
    return last.leader, name_of(last.leader_number, last.opened_at)


def _chunks(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


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
