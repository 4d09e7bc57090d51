"""Sum up what stored answers cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.prices.money import picodollars_in, usd
from batch_assets.core.store.responses import ResponseFiles

_TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass
class AnswerCosts:
    """The cost and the tokens of stored answers."""

    answers: int = 0
    priced: int = 0
    picodollars: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unpriced_models: set[str] = field(default_factory=set)

    @property
    def cost_usd(self) -> float:
        """The cost in USD of the answers that have one."""
        return usd(self.picodollars)

    @classmethod
    def read(cls, files: ResponseFiles, answer_rows: NDArray[np.int64]) -> AnswerCosts:
        """Sum up answers.

        Args:
            files: The response files.
            answer_rows: The row numbers of the answers, sorted; int64, shape (n,).
        """
        costs = cls()
        for number, _, rows in files.by_file(answer_rows):
            table = files.read(number, ["cost_usd", "response_model", *_TOKENS]).take(pa.array(rows))
            cost = table["cost_usd"]
            costs.answers += len(table)
            costs.priced += len(table) - cost.null_count
            costs.unpriced += cost.null_count
            costs.picodollars += picodollars_in(cost)
            unpriced = table["response_model"].filter(cost.is_null()).drop_null()
            costs.unpriced_models.update(unpriced.unique().to_pylist())
            costs.output_tokens += pc.sum(table["output_tokens"]).as_py() or 0
            costs.input_tokens += sum(
                pc.sum(table[name]).as_py() or 0 for name in _TOKENS if name != "output_tokens"
            )
        return costs
