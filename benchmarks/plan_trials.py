"""`python -m benchmarks.plan_trials`: whether the range of a plan holds what the run then costs, in seeded trials.

In each trial the emulator answers a small run with `limit`. The plan of the rest, which is based on these answers,
is compared with what the rest costs. Rows, lengths of prompts, the size of the small run and the kind of answers
differ between the trials: short texts, and JSON whose length varies by half of its mean or nearly all of it. The
order of the rows is random. After these trials come as many in which long answers are cut off and asked again, up
to three times, so that rows cost one to four answers. Their costs differ about twice as much, so their small runs
have four times as many rows. The last trials have a long system prompt and `cache: auto`. In half of them an hour
passes before the rest is sent, so that it has a stub of its own.

Exits with 1 if fewer than 19 of 20 ranges of any kind hold the actual cost. A range whose upper end is more
than 1.5 times its lower one is counted, not failed: it is wide because few answers of very different lengths were
known.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.tables import batch
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.workload import POLL_SECONDS, params_for

HELD_AT_LEAST, RATIO_AT_MOST = 0.95, 1.5
_TRIALS, _ROWS = 20, 1000
# The rows of small runs, without and with follow-ups: from, and before.
_PILOTS, _CHAINED_PILOTS = (20, 51), (100, 201)
# Trials with follow-ups: the kind of their answers, and max_tokens, which cuts off many of them.
_CHAINED_KIND, _SHORT = "lists", 20
# The rules in the system prompts of trials with the cache: from, and before. And seconds after which it is cold.
_RULES, _COLD = (60, 200), 3700
_TEXTS = {"type": "array", "items": {"type": "string"}}
_POINT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "numbers": {"type": "array", "items": {"type": "number"}}},
    "required": ["name", "numbers"],
    "additionalProperties": False,
}
ANSWERS: dict[str, Any] = {
    "text": None,
    "objects": {"type": "array", "items": _POINT},
    "list": _TEXTS,
    "lists": {"type": "array", "items": _TEXTS},
}
"""What answers have, by the name of their kind: the type of a JSON property, or `None` for a short text."""


@dataclass(frozen=True)
class Trial:
    """The range of a plan, and what the run cost, in USD."""

    pilot: int
    kind: str
    low: float
    high: float
    actual: float

    @property
    def holds(self) -> bool:
        """Whether the range holds the actual cost."""
        return self.low <= self.actual <= self.high

    @property
    def ratio(self) -> float:
        """The upper end as a multiple of the lower one."""
        return self.high / self.low


def make_pipeline(folder: Path, rows: int, kind: str, rng: np.random.Generator, way: str) -> Pipeline:
    """Write a dataset of texts with random lengths, and make the pipeline over it."""
    lengths = np.clip(rng.lognormal(np.log(300), 0.7, rows), 10, 5000).astype(int)
    words = np.array(["alpha", "beta", "gamma", "delta", "epsilon"])
    lines = [
        orjson.dumps({"id": number, "text": f"{number} " + " ".join(rng.choice(words, max(1, length // 6)))})
        for number, length in enumerate(lengths.tolist())
    ]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    fields: dict[str, Any] = {
        "name": "bench",
        "dataset": {"path": "rows.jsonl", "key": "id"},
        "params": params_for(),
    }
    if way == "chains":
        fields["params"] |= {"max_tokens": _SHORT}
        fields["retry"] = {"truncated": {"times": 3}}
    if way == "cache":
        rules = (
            f"Rule {number}: name what a message of kind {number} asks." for number in range(rng.integers(*_RULES))
        )
        fields["params"] |= {"system": f"{folder.name}. {' '.join(rules)}"}
        fields["cache"] = "auto"
    if (type_ := ANSWERS[kind]) is not None:
        fields["output_schema"] = {
            "type": "object",
            "properties": {"answer": type_},
            "required": ["answer"],
            "additionalProperties": False,
        }
    return load_pipeline(fields, folder=folder, source="bench/defs.yaml")


def finish(root: Root, pipeline: Pipeline) -> int:
    """Send what is built, wait for the answers, and return what all answers of the table cost, in picodollars."""
    while True:
        submit_batches(root, pipeline.name, "")  # and the follow-ups of what was collected
        poll(root, now=True)
        results = collect_results(root, pipeline.name, "").results
        assert results is not None and results.cost_usd is not None
        with root.ledger.read() as tx:
            newest = submissions.newest(tx, pipeline.name, "")
            assert newest is not None
            files = Snapshot.of(tx, newest).files
            if not results.ask_again and not any(file.state.in_flight for file in files):
                return round(results.cost_usd * PICODOLLARS)
        time.sleep(POLL_SECONDS)


def let_cache_expire(emulator: Emulator, root: Root) -> None:
    """Let an hour pass for the emulator, and as long since what was sent so far."""
    emulator.clock(advance=_COLD)
    with root.ledger.write() as tx:
        earlier = {column.name: column - _COLD for column in (batch.c.created_at, batch.c.submitted_at)}
        tx.execute(sa.update(batch).values(earlier))


def trial(emulator: Emulator, folder: Path, seed: int, rows: int, way: str) -> Trial:
    """Run one trial."""
    rng = np.random.default_rng(seed)
    kind = _CHAINED_KIND if way == "chains" else list(ANSWERS)[seed % len(ANSWERS)]
    pilot = int(rng.integers(*(_CHAINED_PILOTS if way == "chains" else _PILOTS)))
    pipeline = make_pipeline(folder, rows, kind, rng, way)
    env = {"BATCH_ASSETS_EMULATOR": emulator.url, "BATCH_ASSETS_ROOT": str(folder / "root")}
    with open_root(Settings.from_env(env)) as root:
        build_requests(root, pipeline, limit=pilot)
        paid = finish(root, pipeline)
        if way == "cache" and seed // len(ANSWERS) % 2:
            let_cache_expire(emulator, root)
        estimate = plan_requests(root, pipeline, "", AskAgain()).estimate
        assert estimate is not None and estimate.batch is not None
        build_requests(root, pipeline)
        actual = finish(root, pipeline) - paid
    low, high = estimate.batch.low / PICODOLLARS, estimate.batch.high / PICODOLLARS
    return Trial(pilot, kind if way == "answers" else way, low, high, actual / PICODOLLARS)


def main() -> None:
    """Run the trials and print each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=_TRIALS)
    parser.add_argument(
        "--chains", type=int, default=_TRIALS, help="the number of trials with follow-ups after them"
    )
    parser.add_argument("--cached", type=int, default=_TRIALS, help="the number of trials with `cache: auto`")
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first trial")
    arguments = parser.parse_args()
    ways = ["answers"] * arguments.trials + ["chains"] * arguments.chains + ["cache"] * arguments.cached
    by_way: dict[str, list[Trial]] = {}
    print("seed  pilot  answers  low       high      actual    high/low")
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator(state=Path(folder) / "emulator", latency=0.0) as emulator,
    ):
        for seed, way in enumerate(ways, arguments.seed):
            own = Path(folder) / f"trial-{seed}"
            own.mkdir()
            done = trial(emulator, own, seed, arguments.rows, way)
            by_way.setdefault(way, []).append(done)
            print(
                f"{seed:4d}  {done.pilot:5d}  {done.kind:7s}  ${done.low:.5f}  ${done.high:.5f}  "
                f"${done.actual:.5f}  {done.ratio:8.2f}{'' if done.holds else '  not held'}",
                flush=True,
            )
    enough = [hold_enough(way, trials) for way, trials in by_way.items()]
    sys.exit(not all(enough))


def hold_enough(way: str, trials: list[Trial]) -> bool:
    """Print how many ranges hold the actual cost, and return whether enough do."""
    held, narrow = sum(each.holds for each in trials), sum(each.ratio <= RATIO_AT_MOST for each in trials)
    ratios = sorted(each.ratio for each in trials)
    print(f"{way}: {held} of {len(trials)} ranges hold the actual cost; {narrow} have an upper end of at most 1.5")
    print(f"times the lower one (median {ratios[len(ratios) // 2]:.2f}, largest {ratios[-1]:.2f})")
    return held >= HELD_AT_LEAST * len(trials)


if __name__ == "__main__":
    main()
