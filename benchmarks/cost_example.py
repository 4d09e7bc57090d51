"""`python -m benchmarks.cost_example`: the worked example of docs/cost.md, what a run costs in several ways.

All runs are against the emulator, whose answers have another length than a model's: the amounts show how the ways
compare, not what a model would cost. Each line has the estimate before the run and the actual cost after it.

    --dataset FILE   A Parquet file with a column `text`. Without it, a dataset of the same shape is made of a
                     seed: 54,263 short texts, of which 269 are repeated.
    --rows N         Only the first N rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.cli.headless import Watcher, run_pipeline
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.ledger import spend
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from benchmarks.workload import MODEL, SYSTEM

_ROWS, _REPEATED = 54_263, 269
_SEED = 7
_WORDS = "the a good bad very thing day love hate game why not what people think really like time"
# Rules for the answer, as an author may write them: long enough to be cached.
_RULES = " ".join(
    f"Rule {number}: if a message is of kind {number}, say so in the fewest words, and name what it asks for."
    for number in range(1, 61)
)


class Silent:
    """A display of a run that shows nothing, and keeps what a pilot says of the rest.

    Attributes:
        rest: What the requests after the pilot would cost, as text; "" without a pilot.
    """

    rest = ""

    def submitted(self, report: SubmitReport) -> None:
        """Keep the estimate of the rest."""
        for pilot in report.pilots:
            self.rest = pilot.rest

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@dataclass(frozen=True)
class Line:
    """What one way of running costs.

    Attributes:
        name: The way.
        requests: The number of requests that were sent.
        estimate: The estimate before, in picodollars; `None` if nothing was to be sent.
        actual: What it cost, in picodollars.
        note: What else there is to say.
    """

    name: str
    requests: int
    estimate: Range | None
    actual: int
    note: str = ""

    @property
    def is_held(self) -> bool:
        """Whether the estimate holds the actual cost."""
        return self.estimate is None or self.estimate.low <= self.actual <= self.estimate.high

    @property
    def as_row(self) -> str:
        """The line as a row of a Markdown table."""
        shown = f"${_usd(self.estimate.low)} to ${_usd(self.estimate.high)}" if self.estimate is not None else ""
        return f"| {self.name} | {self.requests:,} | {shown} | ${_usd(self.actual)} | {self.note} |"


def _usd(picodollars: float) -> str:
    return f"{picodollars / PICODOLLARS:.4f}"


def made_texts(rows: int, seed: int) -> list[str]:
    """Return short texts of random words, of which a share is repeated as in the dataset that they imitate."""
    rng = np.random.default_rng(seed)
    words = np.array(_WORDS.split())
    lengths = np.clip(rng.normal(68, 37, rows), 5, 700).astype(int)
    texts = [
        f"{' '.join(rng.choice(words, max(1, length // 5)))} {number}" for number, length in enumerate(lengths)
    ]
    repeated = max(1, rows * _REPEATED // _ROWS)
    for at in range(repeated):
        texts[rows - 1 - at] = texts[at % 40]
    return texts


class Example:
    """The runs of the example, each in a root of its own.

    Args:
        folder: A folder for datasets and roots.
        url: The URL of the emulator.
        texts: The texts of the rows.
    """

    def __init__(self, folder: Path, url: str, texts: list[str]) -> None:
        self._folder, self._url, self._texts = folder, url, texts

    def pipeline(
        self, name: str, texts: list[str] | None = None, *, system: str = SYSTEM, **more: Any
    ) -> Pipeline:
        """Write the dataset, and make the pipeline over it."""
        own = self._folder / name
        own.mkdir(exist_ok=True)
        texts = texts or self._texts
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), own / "rows.parquet")
        messages = [{"role": "user", "content": "{{ text }}"}]
        params = {"model": MODEL, "max_tokens": 100, "system": system, "messages": messages}
        fields = {"name": "example", "dataset": {"path": "rows.parquet", "key": "id"}, "params": params}
        fields |= {field: value for field, value in more.items() if value is not None}
        return load_pipeline(fields, folder=own, source=f"{name}/defs.yaml")

    def root(self, name: str) -> Root:
        """Open the root of a run."""
        root = str(self._folder / name / "root")
        return open_root(Settings.from_env({"BATCH_ASSETS_EMULATOR": self._url, "BATCH_ASSETS_ROOT": root}))

    def run(
        self, name: str, root: Root, pipeline: Pipeline, again: AskAgain = NOTHING_AGAIN, note: str = ""
    ) -> Line:
        """Plan, run to the end, and return the line."""
        plan = plan_requests(root, pipeline, "", again)
        estimate = plan.estimate.batch if plan.estimate is not None else None
        before = spent(root, pipeline)
        watcher = Silent()
        run_pipeline(root, pipeline, "", cast(Watcher, watcher), again=again)
        if watcher.rest:
            note = f"after the pilot, the rest: {watcher.rest}"
        return Line(name, plan.requests, estimate, spent(root, pipeline) - before, note)


def spent(root: Root, pipeline: Pipeline) -> int:
    """Return what all batches of a pipeline cost, in picodollars."""
    with root.ledger.read() as tx:
        return sum(known.cost.picodollars for known in spend.not_logged(tx, pipeline.name, [""]) if known.cost)


def run_example(example: Example, texts: list[str]) -> list[Line]:
    """Run all ways."""
    lines: list[Line] = []
    with example.root("plain") as root:
        pipeline = example.pipeline("plain")
        plain = example.run("plain", root, pipeline)
        repeated = len(texts) - plain.requests
        lines.append(replace(plain, note=f"{repeated} rows share the request of another row"))
        rng = np.random.default_rng(_SEED)
        edited = list(texts)
        for at in rng.choice(len(texts), max(1, len(texts) // 100), replace=False).tolist():
            edited[at] += " (edited)"
        edits = example.pipeline("plain", edited)
        lines.append(example.run("1 % of the rows edited", root, edits, note="all other answers are reused"))
        lines.append(example.run("nothing edited", root, edits))
    with example.root("pilot") as root:
        lines.append(example.run("with `pilot: 50`", root, example.pipeline("pilot", pilot=50)))
    with example.root("limit") as root:
        pipeline = example.pipeline("limit")
        lines.append(example.run("with `--limit 50`", root, pipeline, AskAgain(limit=50)))
        lines.append(example.run("then the rest", root, pipeline, note="estimated from these 50 answers"))
    for cache in (None, "auto"):
        name = "long prompt, `cache: auto`" if cache else "long prompt"
        own = "cached" if cache else "uncached"
        with example.root(own) as root:
            pipeline = example.pipeline(own, system=f"{SYSTEM} {_RULES}", cache=cache)
            note = "the upper end is without the cache" if cache else ""
            lines.append(example.run(name, root, pipeline, note=note))
    cap = round(plain.actual * 1.25 / PICODOLLARS, 4)
    with example.root("budget") as root:
        pipeline = example.pipeline("budget", budget={"max_usd": cap, "per": "run"})
        line = example.run("under a budget", root, pipeline)
        with root.ledger.read() as tx:
            batches = len(spend.not_logged(tx, pipeline.name, [""]))
        note = f"cap ${cap:.3f}; sent in {batches} batches, one after the other"
        lines.append(replace(line, note=note))
    return lines


def read_texts(path: Path | None, rows: int) -> list[str]:
    """Return the texts of a dataset, or made ones."""
    if path is None:
        return made_texts(rows, _SEED)
    table = pq.read_table(path, columns=["text"])
    texts: list[str] = table["text"].to_pylist()
    return texts[:rows]


def main() -> None:
    """Run the example and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--rows", type=int, default=_ROWS)
    arguments = parser.parse_args()
    texts = read_texts(arguments.dataset, arguments.rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator(state=Path(folder) / "emulator", latency=0.0) as emulator,
    ):
        lines = run_example(Example(Path(folder), emulator.url, texts), texts)
    print("| Run | Requests | Estimate | Actual | |")
    print("|---|---|---|---|---|")
    for line in lines:
        print(line.as_row)
    wrong = [line.name for line in lines if not line.is_held]
    print(f"\nestimates that do not hold the actual cost: {', '.join(wrong) or 'none'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
