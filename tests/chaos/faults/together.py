"""Several processes at one root at the same time, without faults and with faults."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import Bench, Rules
from tests.chaos.faults.case import Case, Tried, failed_in, rule
from tests.core.support import CREATE, RESULTS

# Seconds for which a batch is looked for that a killed process may have left unnoticed at the server.
_GRACE = 2.0
_FAILING = {"error_mix": {"overloaded_error": 0.3, "expired": 0.3, "first": 1}}
_FAULTS: dict[str, Rules] = {
    "no fault": [],
    "replies lost": [rule(CREATE, {"drop": "after_commit"}, nth=[1, 3])],
    "creates dropped": [rule(CREATE, {"drop": "before_commit"}, nth=[1, 2])],
    "429": [rule(CREATE, {"status": 429, "headers": {"retry-after": "0"}}, nth=[1, 2])],
    "answers that fail in passing": [rule(CREATE, _FAILING)],
    "results cut short": [rule(RESULTS, {"truncate": {"fraction": 0.5}, "ending": "reset"}, times=3)],
}


def cases() -> Iterator[Case]:
    for name, rules in _FAULTS.items():
        fault = "several processes at one root at once"
        yield Case(fault, name, partial(_together, tasks=("chain", "unattended", "chain"), rules=rules))
    for seed in range(5):
        fault = "several processes at one root at once, one is killed"
        yield Case(fault, f"seed {seed}", partial(_one_killed, seed=seed))


def _together(bench: Bench, tasks: tuple[str, ...], rules: Rules) -> Tried:
    """Started at the same moment, each process continues until the last row is final."""
    with bench.trial(bench.prepared("batches")) as trial, bench.faults(rules):
        children = [trial.start(task) for task in tasks]
        for child in children:
            trial.expect_given_up(child.wait())
        return trial.finish(from_dataset=True, ask_again=lambda: failed_in(bench, trial)), len(tasks)


def _one_killed(bench: Bench, seed: int) -> Tried:
    """The other processes take over what the killed one had begun."""
    chosen = random.Random(seed)
    after = chosen.uniform(0.0, bench.chain_seconds / 2)
    with bench.trial(bench.prepared("batches"), _GRACE) as trial:
        victim, *others = [trial.start("chain", doomed=doomed) for doomed in (True, False, False)]
        time.sleep(after)
        victim.kill()
        end = victim.wait()
        for child in others:
            trial.expect_given_up(child.wait())
        return trial.finish(from_dataset=True), int(end.killed)
