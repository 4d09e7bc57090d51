"""Estimate what a run would cost before anything is sent, from answers in force and from the size of new requests.

It is an estimate, because the length of answers varies. Unknown costs are reported, not counted as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import usd
from batch_assets.core.prices.prices import Prices
from batch_assets.core.requests.answer_costs import AnswerCosts
from batch_assets.core.requests.build import count_requests
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.outcomes import SUCCEEDED, Outcomes
from batch_assets.core.store.refreshes import outcomes_of
from batch_assets.core.text import about_dollars, count

# Used when there is no answer to estimate from: about this many bytes of JSON make one token of English text.
_BYTES_A_TOKEN = 4.0


@dataclass
class CostEstimate:
    """The estimated cost of the requests of a run.

    Attributes:
        report: The report of the run, in which nothing was written.
        answered: The number of these requests that have an answer now. Each costs what that answer cost.
        new: The number of the other requests. Their cost is estimated in proportion to their bytes, or as
            described in `notes`.
        input_tokens: Input tokens of all requests, tokens of the prompt cache included.
        output_tokens: Output tokens of all requests.
        cost_usd: The cost in USD by the price list; `None` if nothing is known.
        unpriced: The number of requests whose cost is unknown and not part of `cost_usd`.
        unpriced_models: The models without a price.
        notes: What the figures leave out or are based on, as text.
    """

    report: RequestsReport
    answered: int = 0
    new: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    unpriced: int = 0
    unpriced_models: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """The number of requests that would be submitted."""
        return self.report.written

    @property
    def as_text(self) -> str:
        """One sentence: "240 requests, about $0.0078 (101,862 input and 10,986 output tokens)"."""
        if not self.requests:
            return "nothing would be sent"
        cost = "cost unknown"
        if self.cost_usd is not None:
            cost = about_dollars(self.cost_usd)
        tokens = f"{self.input_tokens:,} input and {self.output_tokens:,} output tokens"
        return "; ".join([f"{count(self.requests, 'request')}, {cost} ({tokens})", *self.notes])


def estimate_cost(
    root: Root, pipeline: Pipeline, partition: str, again: AskAgain, *, table: Any = None
) -> CostEstimate:
    """Read the dataset and estimate what a run would cost. Nothing is written, registered or sent.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        again: What is sent again, and the limit.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used.
        ConfigError: When the pipeline does not fit the dataset's columns.
        BusyError: When other processes worked on this pipeline's requests the whole time.
    """
    counted = _Counted(outcomes_of(root, pipeline.name))
    report = count_requests(root, pipeline, partition, counted.add, again, table=table)
    estimate = CostEstimate(report, answered=counted.answered, new=counted.new)
    answers = AnswerCosts.read(counted.outcomes.files, counted.answer_rows())
    estimate.unpriced_models |= answers.unpriced_models
    estimate.unpriced = answers.unpriced
    estimate.input_tokens, estimate.output_tokens = answers.input_tokens, answers.output_tokens
    if answers.priced:
        estimate.cost_usd = answers.cost_usd
    if counted.new:
        _add_new(estimate, counted, answers, root.settings.prices)
    if estimate.unpriced:
        models = ", ".join(sorted(estimate.unpriced_models))
        details = f" (models: {models})" if models else ""
        estimate.notes.append(
            f"without {count(estimate.unpriced, 'request that has', 'requests that have')} no price{details}"
        )
    return estimate


class _Counted:
    """The requests that would be submitted: those with an answer in force, and the bytes of the others."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self.answered = self.new = self.answered_bytes = 0
        self.bytes_of: dict[str, int] = {}
        self.count_of: dict[str, int] = {}
        self._answer_rows: list[NDArray[np.int64]] = []

    def add(self, digests: Digests, params: Sequence[bytes]) -> None:
        outcomes = self.outcomes.for_digests(digests)
        self._answer_rows.append(outcomes.row[outcomes.is_answered])
        for body, has_answer in zip(params, outcomes.is_answered.tolist(), strict=True):
            if has_answer:
                self.answered += 1
                self.answered_bytes += len(body)
            else:
                model = str(orjson.loads(body).get("model"))
                self.new += 1
                self.bytes_of[model] = self.bytes_of.get(model, 0) + len(body)
                self.count_of[model] = self.count_of.get(model, 0) + 1

    def answer_rows(self) -> NDArray[np.int64]:
        """Return the row numbers of the answers, sorted; int64, shape (answered,)."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *self._answer_rows]))


def _add_new(estimate: CostEstimate, counted: _Counted, answers: AnswerCosts, prices: Prices) -> None:
    """Add an estimate for requests that were never answered.

    It follows their bytes in proportion to the answered ones, or the mean of the pipeline's other answers.
    """
    answered_bytes = counted.answered_bytes
    if not answers.answers:
        answers = AnswerCosts.read(counted.outcomes.files, counted.outcomes.rows_of(SUCCEEDED))
    new, size = counted.new, sum(counted.bytes_of.values())
    if answered_bytes and answers.input_tokens:
        input_tokens = size * answers.input_tokens / answered_bytes
        estimate.notes.append(
            f"{count(new, 'of them was', 'of them were')} never answered: estimated from their bytes"
        )
    elif answers.answers:
        input_tokens = new * answers.input_tokens / answers.answers
        estimate.notes.append(
            f"{count(new, 'of them was', 'of them were')} never answered: estimated from the mean of "
            f"{count(answers.answers, 'other answer')}"
        )
    else:
        input_tokens = size / _BYTES_A_TOKEN
        estimate.notes.append(
            f"{count(new, 'of them was', 'of them were')} never answered, and there is no other answer to "
            f"estimate their length from: the cost is that of the prompts alone, "
            f"at {_BYTES_A_TOKEN:.0f} bytes per token"
        )
    output_tokens = new * answers.output_tokens / answers.answers if answers.answers else 0.0
    estimate.input_tokens += round(input_tokens)
    estimate.output_tokens += round(output_tokens)
    for model, requests in counted.count_of.items():
        usage = {  # per request, because long prompts may have a price of their own
            "input_tokens": input_tokens * counted.bytes_of[model] / size / requests,
            "output_tokens": output_tokens / new,
        }
        cost = prices.cost(model, usage)
        if cost is None:
            estimate.unpriced += requests
            estimate.unpriced_models.add(model)
        else:
            estimate.cost_usd = (estimate.cost_usd or 0.0) + usd(cost.batch) * requests
