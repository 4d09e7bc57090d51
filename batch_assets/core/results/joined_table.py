"""The table that the last join wrote, on record, so that a join that would write the same one is skipped.

While the inputs of the join and the table's file are as they were, so is the table.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from batch_assets.core.io.parquet import UNREADABLE
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import Submission
from batch_assets.core.results.report import ResultsReport, Tally
from batch_assets.core.results.value_counts import ValueCounts


class JoinedTable(BaseModel):
    """What the ledger records about the table that a join wrote.

    Attributes:
        version: The version of its file, see `Storage.versions`.
        report: The counts of its report.
        values: The answers by value, by column.
        tally: Its tally, without the costs.
        costs: Those by batch id, in picodollars.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    version: str
    report: dict[str, Any]
    values: ValueCounts
    tally: dict[str, Any]
    costs: dict[str, int]

    @classmethod
    def of(cls, version: str, report: ResultsReport) -> Self:
        """Make the record of a join."""
        tally = report.tally
        return cls(
            version=version,
            values=report.values,
            costs=dict(tally.costs),
            report={name: getattr(report, name) for name in _COUNTS} | {"counts": dict(report.counts)},
            tally={
                "errors": [[*names, rows] for names, rows in tally.errors.items()],
                "requests": dict(tally.requests),
                "live_cost": tally.live_cost,
                "unpriced": sorted(tally.unpriced),
                "unpriced_models": sorted(tally.unpriced_models),
                "attempts": list(tally.attempts.items()),
                "cache_creation_input_tokens": tally.cache_creation_input_tokens,
                "cache_read_input_tokens": tally.cache_read_input_tokens,
                "saved_cache": tally.saved_cache,
            },
        )

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read a record; `None` if another version made it."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None

    def report_of(self, submission: Submission, storage: Storage, parts: tuple[str, ...]) -> ResultsReport | None:
        """Return the report of the table in place; `None` if the table is not the one that the join wrote.

        Args:
            submission: The submission.
            storage: The storage of the root.
            parts: The path of the table.
        """
        if storage.version(*parts) != self.version:
            return None
        try:
            with storage.open(*parts) as source:
                schema = pq.read_schema(source)
        except UNREADABLE:
            return None
        tally = self.tally
        return ResultsReport(
            submission.id,
            storage.uri(*parts),
            schema,
            **{**self.report, "counts": Counter(self.report["counts"])},
            values=self.values,
            tally=Tally(
                errors=Counter({(result, error): rows for result, error, rows in tally["errors"]}),
                requests=Counter(tally["requests"]),
                costs=Counter(self.costs),
                live_cost=tally["live_cost"],
                unpriced=set(tally["unpriced"]),
                unpriced_models=set(tally["unpriced_models"]),
                attempts=Counter(dict(tally["attempts"])),
                cache_creation_input_tokens=tally["cache_creation_input_tokens"],
                cache_read_input_tokens=tally["cache_read_input_tokens"],
                saved_cache=tally.get("saved_cache", 0),  # records of earlier versions lack it
            ),
            final=True,
        )


_COUNTS = (
    *("rows", "input_tokens", "output_tokens", "invalid_outputs", "unusable"),
    *("refused_answers", "truncated", "ask_again", "kept", "left_out"),
)
"""The fields of a report that are plain numbers."""
