"""The last join of a table, on record, so that a join that would write the same table is skipped.

A table depends on its submission, the response files and what the ledger says about refreshes and cancellations.
While these and the table's file are as they were, so is the table.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from importlib.metadata import version
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import Submission
from batch_assets.core.results.report import ResultsReport, Tally
from batch_assets.core.store.outcomes import Refreshes, Untried


def inputs_digest(storage: Storage, submission: Submission, refreshes: Refreshes, untried: Untried) -> str:
    """Return a digest of all that a table depends on, if no code of the pipeline makes its columns.

    Call it before the response files are read. A file that arrives in between then counts as new next time.

    Args:
        storage: The storage of the root.
        submission: The submission.
        refreshes: See `refreshes_of`.
        untried: See `untried_of`.
    """
    inputs = [
        version("batch-assets"),
        submission.id,
        submission.canceled_at,
        sorted(storage.versions(submission.pipeline, "responses").items()),
        sorted((str(name), fresh_after) for name, fresh_after in refreshes.items()),
        sorted((str(name), attempts) for name, attempts in untried.items()),
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


class LastJoin(BaseModel):
    """What the ledger records about the join that wrote a complete table.

    Attributes:
        inputs: See `inputs_digest`.
        table: The version of the table's file, see `Storage.versions`.
        report: The counts of its report.
        tally: Its tally.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    inputs: str
    table: str
    report: dict[str, Any]
    tally: dict[str, Any]

    @classmethod
    def of(cls, inputs: str, table: str, report: ResultsReport) -> Self:
        """Make the record of a join."""
        tally = report.tally
        return cls(
            inputs=inputs,
            table=table,
            report={name: getattr(report, name) for name in _COUNTS} | {"counts": dict(report.counts)},
            tally={
                "errors": [[*names, rows] for names, rows in tally.errors.items()],
                "requests": dict(tally.requests),
                "cost_usd": dict(tally.cost_usd),
                "unpriced": sorted(tally.unpriced),
                "unpriced_models": sorted(tally.unpriced_models),
                "attempts": list(tally.attempts.items()),
                "cache_creation_input_tokens": tally.cache_creation_input_tokens,
                "cache_read_input_tokens": tally.cache_read_input_tokens,
            },
        )

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """Read a record; `None` if there is none, or one of another version."""
        try:
            return cls.model_validate_json(text) if text is not None else None
        except ValidationError:
            return None

    def report_of(self, submission: Submission, storage: Storage, parts: tuple[str, ...]) -> ResultsReport | None:
        """Return the report of the table in place; `None` if the table is not the one that the join wrote.

        Args:
            submission: The submission.
            storage: The storage of the root.
            parts: The path of the table.
        """
        if storage.version(*parts) != self.table:
            return None
        try:
            with storage.open(*parts) as source:
                schema = pq.read_schema(source)
        except (pa.ArrowException, OSError):
            return None
        tally = self.tally
        return ResultsReport(
            submission.id,
            storage.uri(*parts),
            schema,
            **{**self.report, "counts": Counter(self.report["counts"])},
            tally=Tally(
                errors=Counter({(result, error): rows for result, error, rows in tally["errors"]}),
                requests=Counter(tally["requests"]),
                cost_usd=defaultdict(float, tally["cost_usd"]),
                unpriced=set(tally["unpriced"]),
                unpriced_models=set(tally["unpriced_models"]),
                attempts=Counter(dict(tally["attempts"])),
                cache_creation_input_tokens=tally["cache_creation_input_tokens"],
                cache_read_input_tokens=tally["cache_read_input_tokens"],
            ),
            final=True,
        )


_COUNTS = (
    *("rows", "input_tokens", "output_tokens", "invalid_outputs", "refused_answers", "truncated"),
    *("ask_again", "kept", "left_out"),
)
"""The fields of a report that are plain numbers."""
