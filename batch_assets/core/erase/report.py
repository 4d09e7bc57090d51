"""The report of an erasure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from batch_assets.core.text import count


@dataclass
class EraseReport:
    """What was erased, and what is left.

    Attributes:
        pipeline: The name of the pipeline.
        unknown: The keys that no submission has.
        waiting: Why a key could not be erased now, by key.
        submissions: The number of submissions that had a row.
        requests: The number of distinct requests that were erased.
        shared: The number of requests that stay, because other rows have them.
        request_files: The number of request files that were rewritten or replaced.
        answers: The number of answers that were erased, or that have another custom_id now.
        tables: The number of results tables that were written again.
        sink_rows: The number of rows that were deleted from the sink.
        deleted: The ids of the batches that the API no longer has.
        kept: Why a batch is not deleted at the API yet and until when it is kept, by its id.
        problems: What could not be done or read, as texts.
        left: Where one of the keys, or the custom_id of a request, still is.
        elsewhere: Files of other pipelines that have one of the keys.
        unsearched: The keys that are too short to be searched for in texts.
    """

    pipeline: str
    unknown: list[str] = field(default_factory=list)
    waiting: dict[str, list[str]] = field(default_factory=dict)
    submissions: int = 0
    requests: int = 0
    shared: int = 0
    request_files: int = 0
    answers: int = 0
    tables: int = 0
    sink_rows: int = 0
    deleted: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do here or at the API."""
        return not (self.waiting or self.kept or self.problems or self.left)

    def done(self) -> Iterator[str]:
        """Yield what was done, one line each."""
        if self.unknown:
            yield f"no submission of {self.pipeline} has a row {', '.join(map(repr, self.unknown))}"
        if self.submissions or self.request_files or self.answers or self.tables:
            yield (
                f"erased from {count(self.submissions, 'submission')}, "
                f"{count(self.request_files, 'request file')}, {count(self.answers, 'answer')} and "
                f"{count(self.tables, 'results table')}"
            )
        if self.shared:
            yield f"{count(self.shared, 'request stays', 'requests stay')}, because other rows have the same one"
        if self.sink_rows:
            yield f"{count(self.sink_rows, 'row')} deleted from the sink"
        if self.deleted:
            yield f"deleted at the API: {', '.join(self.deleted)}"

    def open_ends(self) -> Iterator[str]:
        """Yield what is left to do, one line each."""
        for key, reasons in self.waiting.items():
            yield f"{key!r} is in flight: {'; '.join(reasons)}"
        yield from self.kept.values()
        yield from self.problems
        yield from (f"found in {where}" for where in self.left)
