"""Shared by the tests of gathered partitions: a pipeline with a file for each partition, and its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from batch_assets.core.batches.submit import submit_partitions
from batch_assets.core.ledger import submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.report import AskAgain, RequestsReport

from ..support import World, make_pipeline, params, texts, write_rows

NAME = "asked"


class Gathering:
    """A pipeline whose partitions are gathered.

    Attributes:
        world: The world.
        rows: By partition, the texts of its rows.
    """

    def __init__(self, world: World, rows: Mapping[str, Mapping[str, str]], **attributes: Any) -> None:
        self.world, self.rows = world, dict(rows)
        self._attributes = {"batching": {"across_partitions": True}} | attributes
        for key, of_partition in rows.items():
            self.write(key, of_partition)

    @classmethod
    def of(cls, world: World, counts: Mapping[str, int], **attributes: Any) -> Gathering:
        """Partitions with so many rows of their own each."""
        return cls(world, {key: texts(number, f"{key} row") for key, number in counts.items()}, **attributes)

    def write(self, key: str, rows: Mapping[str, str]) -> None:
        """Write the rows of a partition."""
        self.rows[key] = dict(rows)
        write_rows(self.world.folder / f"{key}.jsonl", rows)

    def pipeline(self, prompt: str = "{{ text }}", **more: Any) -> Pipeline:
        fields = self._attributes | {"params": params(prompt), "partitions": {"static": [*self.rows]}} | more
        return make_pipeline(self.world.folder, {"path": "{partition}.jsonl", "key": "id"}, **fields)

    def build(self, keys: Sequence[str] | None = None, prompt: str = "{{ text }}", **again: Any) -> dict[str, Any]:
        """Run `requests` over partitions, all by default."""
        keys = [*self.rows] if keys is None else keys
        return dict(build_partitions(self.world.root, self.pipeline(prompt), keys, AskAgain(**again)))

    def written(self, outcomes: Mapping[str, Any]) -> dict[str, int]:
        """The number of requests to send, -1 for a partition that failed."""
        return {key: each.written if isinstance(each, RequestsReport) else -1 for key, each in outcomes.items()}

    def submit(self, keys: Sequence[str] | None = None, *, unattended: bool = False) -> dict[str, Any]:
        """Run `batches` over partitions, all by default."""
        keys = [*self.rows] if keys is None else keys
        return dict(submit_partitions(self.world.root, NAME, keys, unattended=unattended))

    def finish(self, keys: Sequence[str] | None = None) -> None:
        """Do what the sensor does until every row of some partitions, all by default, has its final result."""
        self.world.emulator.end_batches()
        for key in [*self.rows] if keys is None else keys:
            self.world.finish(self.pipeline(), key)

    def run(self, keys: Sequence[str] | None = None) -> None:
        """Run all stages."""
        self.build(keys)
        self.submit(keys)
        self.finish(keys)

    def table(self, key: str) -> pd.DataFrame:
        path = self.world.path(NAME, "results", f"partition={key}", "results.parquet")
        table: pd.DataFrame = pd.read_parquet(path)
        return table

    def files(self) -> list[tuple[str, int, str]]:
        """The partition, the number of requests and the state of every request file, in the order of writing."""
        statement = (
            "select f.partition, f.requests, f.state from request_file f join submission s "
            "on s.id = f.submission_id order by s.seq, f.name"
        )
        return [tuple(row) for row in self.world.query(statement)]

    def waits(self) -> dict[str, int]:
        """By partition, the number of files that its submission in force waits on."""
        with self.world.root.ledger.read() as tx:
            return {
                each.partition: len(submissions.waited_on(tx, each.id))
                for each in submissions.all_newest(tx, NAME)
            }

    def check(self, *, accepted: int | None = None) -> None:
        """Every row has its own answer, and every request was accepted once, or so many in all."""
        for key, rows in self.rows.items():
            table = self.table(key)
            assert dict(zip(table["id"], table["result_type"], strict=True)) == dict.fromkeys(rows, "succeeded")
            for row in table.itertuples():
                assert str(row.text)[:40] in str(row.response_text)
        ids = [custom_id[-22:] for custom_id in self.world.accepted_custom_ids()]
        if accepted is None:
            assert (
                len(ids) == len(set(ids)) == len({text for rows in self.rows.values() for text in rows.values()})
            )
        else:
            assert len(ids) == accepted
