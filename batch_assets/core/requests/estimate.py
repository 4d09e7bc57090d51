"""What a run would cost before anything is sent: from the answers in force, and from the bytes of what is new.

It is an estimate: a model may answer at another length the next time. What is not known is said, not taken for 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices import about, default_prices
from batch_assets.core.requests.build import count_requests
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.outcomes import SUCCEEDED, Outcomes
from batch_assets.core.store.refreshes import outcomes_of

_TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
# Where no answer says better: about as many bytes of JSON are a token of English text.
_BYTES_A_TOKEN = 4.0


@dataclass
class CostEstimate:
    """What the requests of a run would cost.

    Attributes:
        report: what would be submitted.
        answered: of these, the ones that have an answer now. Their cost is what that one cost.
        new: the others. Their cost is that of as many bytes as those, or what `notes` says.
        input_tokens, output_tokens: of all of them; tokens of the prompt cache are input.
        cost_usd: USD, by the price list; None when nothing is known.
        unpriced: requests whose cost is not known and not part of it.
        unpriced_models: models without a price.
        notes: what the figures leave out or rest on, for people.
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
        """How many would be submitted."""
        return self.report.written

    @property
    def in_words(self) -> str:
        """One sentence: "240 requests, about $0.0078 (101,862 input and 10,986 output tokens)"."""
        if not self.requests:
            return "nothing would be asked"
        count = "1 request" if self.requests == 1 else f"{self.requests:,} requests"
        cost = "cost unknown"
        if self.cost_usd is not None:
            cost = about(self.cost_usd)
        tokens = f"{self.input_tokens:,} input and {self.output_tokens:,} output tokens"
        return "; ".join([f"{count}, {cost} ({tokens})", *self.notes])


def estimate_cost(
    root: Root, pipeline: Pipeline, partition: str, again: AskAgain, *, table: Any = None
) -> CostEstimate:
    """Reads the dataset and says what asking would cost. Nothing is written, registered or sent.

    Args:
        again, table: see `count_requests`.

    Errors:
        As of `build_requests`.
    """
    counted = _Counted(outcomes_of(root, pipeline.name))
    report = count_requests(root, pipeline, partition, counted.add, again, table=table)
    estimate = CostEstimate(report, answered=counted.answered, new=counted.new)
    known = _Known.read(counted.outcomes, counted.places())
    estimate.unpriced_models |= known.unpriced_models
    estimate.unpriced = known.unpriced
    estimate.input_tokens, estimate.output_tokens = known.input_tokens, known.output_tokens
    if known.priced:
        estimate.cost_usd = known.cost_usd
    if counted.new:
        _add_new(estimate, counted, known)
    if estimate.unpriced:
        models = ", ".join(sorted(estimate.unpriced_models))
        of_models = f" of {models}" if models else ""
        estimate.notes.append(f"without {estimate.unpriced:,} requests, for which there is no price{of_models}")
    return estimate


class _Counted:
    """The requests that would be submitted: with an answer in force, or bytes."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self.answered = self.new = self.answered_bytes = 0
        self.bytes_of: dict[str, int] = {}
        self.count_of: dict[str, int] = {}
        self._places: list[NDArray[np.int64]] = []

    def add(self, digests: Digests, params: Sequence[bytes]) -> None:
        found = self.outcomes.of(digests)
        self._places.append(found.place[found.is_answered])
        for body, has_answer in zip(params, found.is_answered.tolist(), strict=True):
            if has_answer:
                self.answered += 1
                self.answered_bytes += len(body)
            else:
                model = str(orjson.loads(body).get("model"))
                self.new += 1
                self.bytes_of[model] = self.bytes_of.get(model, 0) + len(body)
                self.count_of[model] = self.count_of.get(model, 0) + 1

    def places(self) -> NDArray[np.int64]:
        """Of the answers, sorted."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *self._places]))


@dataclass
class _Known:
    """What answers that there are have cost."""

    answers: int = 0
    priced: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unpriced_models: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, outcomes: Outcomes, places: NDArray[np.int64]) -> _Known:
        """Args: places: of the answers, sorted."""
        known = cls()
        for number, _, rows in outcomes.files.by_file(places):
            table = outcomes.files.read(number, ["cost_usd", "response_model", *_TOKENS]).take(pa.array(rows))
            cost = table["cost_usd"]
            known.answers += len(table)
            known.priced += len(table) - cost.null_count
            known.unpriced += cost.null_count
            known.cost_usd += pc.sum(cost).as_py() or 0.0
            unpriced = table["response_model"].filter(cost.is_null()).drop_null()
            known.unpriced_models.update(unpriced.unique().to_pylist())
            known.output_tokens += pc.sum(table["output_tokens"]).as_py() or 0
            known.input_tokens += sum(
                pc.sum(table[name]).as_py() or 0 for name in _TOKENS if name != "output_tokens"
            )
        return known


def _add_new(estimate: CostEstimate, counted: _Counted, known: _Known) -> None:
    """What was never answered: as long as the answered ones by bytes, else as the pipeline's other answers."""
    bytes_of_known, answers = counted.answered_bytes, known
    if not known.answers:
        answers = _Known.read(counted.outcomes, counted.outcomes.places_of(SUCCEEDED))
    new, size = counted.new, sum(counted.bytes_of.values())
    if bytes_of_known and answers.input_tokens:
        input_tokens = size * answers.input_tokens / bytes_of_known
        estimate.notes.append(f"{new:,} of them were never answered: estimated by their bytes")
    elif answers.answers:
        input_tokens = new * answers.input_tokens / answers.answers
        estimate.notes.append(
            f"{new:,} of them were never answered: estimated by the mean of {answers.answers:,} other answers"
        )
    else:
        input_tokens = size / _BYTES_A_TOKEN
        estimate.notes.append(
            f"{new:,} of them were never answered, and no other answer says how long theirs will be: the cost is "
            f"that of the prompts alone, at {_BYTES_A_TOKEN:.0f} bytes a token"
        )
    output_tokens = new * answers.output_tokens / answers.answers if answers.answers else 0.0
    estimate.input_tokens += round(input_tokens)
    estimate.output_tokens += round(output_tokens)
    for model, count in counted.count_of.items():
        usage = {  # of one: long prompts may have a price of their own
            "input_tokens": input_tokens * counted.bytes_of[model] / size / count,
            "output_tokens": output_tokens / new,
        }
        cost = default_prices().cost(model, usage)
        if cost is None:
            estimate.unpriced += count
            estimate.unpriced_models.add(model)
        else:
            estimate.cost_usd = (estimate.cost_usd or 0.0) + cost * count
