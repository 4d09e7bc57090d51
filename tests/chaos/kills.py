"""Kills of the process: at every I/O boundary of every stage, and at random times."""

from __future__ import annotations

import random

from tests.chaos.bench import Bench
from tests.chaos.judge import Verdict

STAGES = {
    "requests": "kill -9 in requests",
    "batches": "kill -9 in batches",
    "retry": "kill -9 in batches, retrying",
    "follow-up": "kill -9 in batches, with results of tools",
    "collection": "kill -9 in collection",
    "results": "kill -9 in results",
}
"""Stages, and what their kills are called."""
RANDOM = "kill -9 at a random time"
# In one root at most. Then the stages may finish.
_KILLS_IN_A_ROW = 6


def positions(bench: Bench, stage: str) -> tuple[str, ...]:
    """The name of each kill position of a stage, from a run without a kill."""
    with bench.trial(bench.prepared(stage)) as trial:
        end = trial.run(stage, count=True)
    if end.failed:
        raise RuntimeError(f"{stage} fails without a fault:\n{end.log}")
    return end.points


def kill_at(bench: Bench, stage: str, position: int) -> tuple[Verdict, str, int]:
    """Kill a stage at a position, then finish in a new process.

    Returns:
        The verdict, where the stage was killed, and 1, or 0 if it ended before the position.
    """
    with bench.trial(bench.prepared(stage)) as trial:
        end = trial.run(stage, kill_at=position)
        # A user starts again from the dataset, the sensor continues with what is there.
        verdict = trial.finish(from_dataset=stage == "requests" or position % 2 == 0)
        if end.failed:
            verdict.problems.append(f"it failed:\n{end.log}")
        return verdict, f"position {position}, {end.killed_at}", int(end.killed)


def kill_at_random(bench: Bench, seed: int, most: int = _KILLS_IN_A_ROW) -> tuple[Verdict, str, int]:
    """Kill the stages again and again in one root, each time somewhere else, until they finish.

    Returns:
        The verdict, when the stages were killed, and how often.
    """
    chosen = random.Random(seed)
    times: list[str] = []
    longest = bench.chain_seconds
    with bench.trial(bench.prepared("requests")) as trial:
        while len(times) < most:
            after = chosen.uniform(0.001, longest)
            end = trial.run("chain", kill_after=after)
            if not end.killed:
                break
            times.append(f"{after:.3f} s")
        verdict = trial.finish(from_dataset=chosen.random() < 0.5 or len(times) == most)
        if end.failed:
            verdict.problems.append(f"it failed:\n{end.log}")
        return verdict, f"seed {seed}, after {', '.join(times)}", len(times)
