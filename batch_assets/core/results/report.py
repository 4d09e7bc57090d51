"""What a join of results found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from batch_assets.core.results.tally import Tally


@dataclass
class ResultsReport:
    """What the table holds.

    Attributes:
        counts: rows by result_type.
        input_tokens, output_tokens: sums over the table.
        invalid_outputs: rows whose answer does not match the schema.
        refused, truncated: rows whose answer the model refused to give; whose answer was cut off.
        tally: requests, costs and failures in more detail.
        kept: rows of a refresh that have their older answer, for the new request failed for good.
        left_out: distinct requests that a limit left out.
        held_back: the table was left as it is: rows of a refresh wait, and it has no such row.
        final: every row has its final type.
        problems: why rows are pending that may not be.
        uri: where the table lies.
    """

    submission_id: str
    uri: str
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    invalid_outputs: int = 0
    refused: int = 0
    truncated: int = 0
    tally: Tally = field(default_factory=Tally)
    ask_again: int = 0
    kept: int = 0
    left_out: int = 0
    held_back: bool = False
    final: bool = False
    schema: pa.Schema | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def cost_usd(self) -> float | None:
        """What the answers cost, each request once; None when that of any of them is not known."""
        return None if self.tally.unpriced_models else sum(self.tally.cost_usd.values(), 0.0)
