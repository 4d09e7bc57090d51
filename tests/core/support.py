"""Shared by the tests of the core: a world of one emulator and one root, and the loop over the stages."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.ledger import Transaction, submissions
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import NO_HOOKS, Hooks, Pipeline
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Round
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.results.run import CollectedResults, collect_results
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator

MODEL = "claude-haiku-5-5"
BATCHES = "/v1/messages/batches"
CREATE = {"method": "POST", "path": BATCHES}
LIST = {"method": "GET", "path": BATCHES}
RESULTS = {"method": "GET", "path": f"{BATCHES}/*/results"}
DEADLINE = 180.0
LATE = 7 * 3600
T = TypeVar("T")


def params(content: Any = "{{ text }}", **more: Any) -> dict[str, Any]:
    """The params of a pipeline that sends one request for each row."""
    return {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": content}], **more}


def calling(argument: Any) -> dict[str, Any]:
    """The params of a pipeline whose requests contain a call of a tool with an argument."""
    call = {"type": "tool_use", "id": "call-1", "name": "tool", "input": argument}
    result = {"type": "tool_result", "tool_use_id": "call-1", "content": "{{ text }}"}
    asked = params("Call the tool.", tools=[{"name": "tool", "input_schema": {"type": "object"}}])
    asked["messages"] += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return asked


def make_pipeline(
    folder: Path, dataset: Mapping[str, Any] | str, *, hooks: Hooks = NO_HOOKS, **attributes: Any
) -> Pipeline:
    """A pipeline whose files and dataset are in `folder`."""
    source = {"path": dataset} if isinstance(dataset, str) else dict(dataset)
    fields = {"name": "asked", "dataset": source, "params": params(), **attributes}
    return load_pipeline(fields, folder=folder, source="asked/defs.yaml", hooks=hooks)


def read(folder: Path, dataset: Mapping[str, Any] | str, columns: list[str] | None = None) -> pa.Table:
    """The dataset's rows as one table, with the row key as the first column."""
    opened = Dataset(make_pipeline(folder, dataset))
    names = columns or list(dict.fromkeys([opened.key, *opened.schema.names]))
    batches = [rows.table for rows in opened.rows(names)]
    return pa.Table.from_batches(batches) if batches else opened.schema.empty_table()


def write_rows(path: Path, texts: Mapping[str, str]) -> Path:
    """Write a JSON Lines dataset with the columns id and text."""
    lines = [orjson.dumps({"id": key, "text": text}) for key, text in texts.items()]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def texts(count: int, word: str = "row") -> dict[str, str]:
    """A number of rows, each with its own text."""
    return {f"{word}-{number}": f"the text of {word} {number}" for number in range(count)}


def round_for(tx: Transaction, submission: Submission | None) -> Round | None:
    """The work that the sensor would find for a submission."""
    return round_of(next_step(Snapshot.of(tx, submission))) if submission is not None else None


def wait_for(condition: Callable[[], T | None], awaited: str, deadline: float = DEADLINE) -> T:
    """Wait until the condition returns something true, and return that."""
    end = time.monotonic() + deadline
    while not (result := condition()):
        assert time.monotonic() < end, f"waited in vain for {awaited}"
        time.sleep(0.02)
    return result


def environment(emulator_url: str, root: Path | str, ledger: str | None = None, **more: str) -> dict[str, str]:
    """The environment variables that a run reads."""
    variables = {
        "BATCH_ASSETS_EMULATOR": emulator_url,
        "BATCH_ASSETS_ROOT": str(root),
        "BATCH_ASSETS_RECONCILE_GRACE": "0",
    }
    return variables | ({"BATCH_ASSETS_LEDGER": ledger} if ledger else {}) | more


class World:
    """One root and one emulator. Batches of earlier tests at the emulator do not show.

    Attributes:
        folder: Holds the pipeline's files and datasets.
        root: Opened on `folder`/output, unless the test specifies another one.
    """

    def __init__(self, emulator: Emulator, folder: Path, root: Root) -> None:
        self.emulator, self.folder, self.root = emulator, folder, root
        self._accepted, self._live = len(emulator.log()), len(emulator.live_calls())
        self._calls = Counter(emulator.requests())

    def accepted(self, *, custom_ids: bool = False) -> list[dict[str, Any]]:
        """Every batch that the API accepted since this world began: what would be paid for."""
        return self.emulator.log(custom_ids=custom_ids)[self._accepted :]

    def accepted_custom_ids(self) -> list[str]:
        """The custom_ids of all requests that the API accepted, in order."""
        return [custom_id for batch in self.accepted(custom_ids=True) for custom_id in batch["custom_ids"]]

    def live_calls(self) -> list[dict[str, Any]]:
        """Every live call that the API answered since this world began: what would be paid for."""
        return self.emulator.live_calls()[self._live :]

    def calls(self) -> Counter[str]:
        """The API calls since this world began, or since `forget_calls`."""
        return Counter(self.emulator.requests()) - self._calls

    def forget_calls(self) -> None:
        self._calls = Counter(self.emulator.requests())

    def sent_body(self, batch_id: str) -> bytes:
        """The body of a create call, byte for byte."""
        return (self.emulator.state / "bodies" / f"{batch_id}.json").read_bytes()

    def pipeline(self, rows: Mapping[str, str] | str | None = None, **attributes: Any) -> Pipeline:
        """A pipeline over the given rows, a dataset in the folder, or the rows that were written before."""
        if isinstance(rows, Mapping):
            write_rows(self.folder / "rows.jsonl", rows)
            rows = None
        dataset = attributes.pop("dataset", {"path": rows or "rows.jsonl", "key": "id"})
        return make_pipeline(self.folder, dataset, **attributes)

    def build(self, pipeline: Pipeline, partition: str = "", **more: Any) -> RequestsReport:
        return build_requests(self.root, pipeline, partition, **more)

    def submit(self, pipeline: Pipeline, partition: str = "", *, unattended: bool = False) -> SubmitReport:
        tools = pipeline.hooks.tool_functions
        report = submit_batches(self.root, pipeline.name, partition, unattended=unattended, tools=tools)
        assert report is not None
        return report

    def send(self, pipeline: Pipeline, partition: str = "") -> SubmitReport:
        """Run `requests` and `batches`."""
        self.build(pipeline, partition)
        return self.submit(pipeline, partition)

    def send_late(self, pipeline: Pipeline) -> None:
        """Send requests whose batch still runs when a deadline of less than seven hours has passed."""
        self.emulator.settings(latency=24 * 3600)
        record_caps(self.root, [pipeline])
        self.send(pipeline)
        self.pass_deadline()

    def pass_deadline(self) -> None:
        """Let seven hours pass since everything that was sent."""
        self.query("update submission set began_at = began_at - :late", late=LATE)
        self.query("update batch set submitted_at = submitted_at - :late", late=LATE)

    def collect(self, pipeline: Pipeline, partition: str = "") -> CollectedResults:
        """Poll once, then run `results`."""
        poll(self.root, now=True)
        return collect_results(self.root, pipeline.name, partition, answers=pipeline.own_answers)

    def finish(self, pipeline: Pipeline, partition: str = "") -> CollectedResults:
        """Do what the sensor does, until every row has its final type."""

        def step() -> CollectedResults | None:
            done = self.collect(pipeline, partition)
            assert done.results is not None
            if done.results.final:
                return done
            self.submit(pipeline, partition, unattended=True)
            return None

        return wait_for(step, "final results")

    def run(self, pipeline: Pipeline, partition: str = "") -> pd.DataFrame:
        """Run all stages and return the table."""
        self.send(pipeline, partition)
        self.finish(pipeline, partition)
        return self.table(pipeline)

    def table(self, pipeline: Pipeline) -> pd.DataFrame:
        """The table that users read."""
        table: pd.DataFrame = pd.read_parquet(self.path(pipeline.name, "results"))
        return table

    def waiting_table(self, pipeline: Pipeline) -> pd.DataFrame:
        """The newest table while users read the complete one of before."""
        table: pd.DataFrame = pd.read_parquet(self.path(pipeline.name, "results_next"))
        return table

    def path(self, *parts: str) -> Path:
        return Path(self.root.settings.root, *parts)

    def submission_folder(self, pipeline: Pipeline, report: RequestsReport, partition: str = "") -> Path:
        inner = (f"partition={partition}",) if partition else ()
        return self.path(pipeline.name, "requests", *inner, report.submission_id)

    def files(self, pipeline: Pipeline, partition: str = "") -> list[RequestFile]:
        """The request files that the submission in force waits on."""
        with self.root.ledger.read() as tx:
            submission = submissions.newest(tx, pipeline.name, partition)
            assert submission is not None
            return submissions.waited_on(tx, submission.id)

    def states(self, pipeline: Pipeline, partition: str = "") -> list[str]:
        return [file.state for file in self.files(pipeline, partition)]

    def query(self, sql: str, **values: Any) -> list[Any]:
        """Query the ledger's tables, or change them as the passing of time would."""
        with self.root.ledger.write() as tx:
            done = tx.execute(sa.text(sql).bindparams(**values))
            return list(done.all()) if done.returns_rows else []

    def reopened(self, **more: str) -> Root:
        """Open the same root again with other variables."""
        self.root.close()
        settings = self.root.settings
        more = {"BATCH_ASSETS_TRANSFERS": str(settings.transfers)} | more
        env = environment(self.emulator.url, settings.root, settings.ledger_url, **more)
        self.root = open_root(Settings.from_env(env))
        return self.root


def as_new(emulator: Emulator) -> Emulator:
    """Reset an emulator to its initial state: no faults, no batches, its own clock."""
    emulator.reset_faults()
    emulator.settings(
        latency=0.0, cancel_delay=0.0, expiry=86400, moving_counters=False, max_body_bytes=256_000_000,
        max_requests=100_000, queue_limit=None,
    )  # fmt: skip
    emulator.end_batches()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"x-api-key": "any"}
    with opener.open(urllib.request.Request(f"{emulator.url}{BATCHES}?limit=1000", headers=headers)) as response:
        batches = orjson.loads(response.read())["data"]
    for batch in batches:
        url = f"{emulator.url}{BATCHES}/{batch['id']}"
        opener.open(urllib.request.Request(url, method="DELETE", headers=headers)).close()
    emulator.clock(reset=True)
    return emulator
