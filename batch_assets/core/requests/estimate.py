"""An estimate: what requests would cost, as a range with its basis, before anything is sent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from batch_assets.core.prices.range import Range
from batch_assets.core.text import count


class InputBasis(StrEnum):
    """Where the tokens of the prompts are known from."""

    ANSWERS = "answers"
    """Answers of this pipeline, which say how many tokens their prompts had."""
    COUNTED = "counted"
    """The API has counted the tokens of some of the requests."""
    CHARACTERS = "characters"
    """The usual number of characters per token of the model."""


class OutputBasis(StrEnum):
    """Where the tokens of the answers are known from."""

    ANSWERS = "answers"
    """Earlier answers to the same prompt."""
    MAX_TOKENS = "max_tokens"
    """Nothing is known: an answer has between no token and `max_tokens`."""


@dataclass(frozen=True)
class Estimate:
    """What some requests would cost, by the price list.

    Attributes:
        requests: The number of requests.
        batch: The cost in batches; `None` if none of their models has a price.
        live: What they would cost as live calls.
        cached: What they would cost in batches if the prefix that all of them share were cached; `None` if there
            is none that the model would cache, or if the author caches something already.
        input_basis: Where the tokens of the prompts are known from.
        output_basis: Where the tokens of the answers are known from.
        answers: The number of answers that were looked at.
        unpriced: About how many of the requests have no price. They are not in the amounts.
        unpriced_models: Their models.
        unbounded: Why the upper end does not have everything, as a clause; "" if it has.
        has_follow_ups: Whether the answers that were looked at count with their follow-ups.
        notes: What the figures leave out.
    """

    requests: int
    batch: Range | None
    live: Range | None
    cached: Range | None
    input_basis: InputBasis
    output_basis: OutputBasis
    answers: int
    unpriced: int = 0
    unpriced_models: tuple[str, ...] = ()
    unbounded: str = ""
    has_follow_ups: bool = False
    notes: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether every request has a price."""
        return self.batch is not None and not self.unpriced

    @property
    def basis(self) -> str:
        """What the range is based on: "from 50 answers to this prompt"."""
        if self.output_basis is OutputBasis.ANSWERS:
            followed = " with their follow-ups" if self.has_follow_ups else ""
            return f"from {count(self.answers, 'answer')} to this prompt{followed}"
        tokens = {
            InputBasis.ANSWERS: f"prompts by the tokens of {count(self.answers, 'earlier prompt')}",
            InputBasis.COUNTED: "prompts as the API counts their tokens",
            InputBasis.CHARACTERS: "prompts by their characters",
        }
        return f"{tokens[self.input_basis]}, answers of 0 to max_tokens tokens: none to this prompt is known"

    @property
    def as_text(self) -> str:
        """The estimate as one line: "240 requests, $0.0061 to $0.0094, about $0.0078; from 50 answers …"."""
        parts = [f"{count(self.requests, 'request')}, {self.batch.as_text if self.batch else 'cost unknown'}"]
        if self.batch is not None:
            parts.append(self.basis)
        if self.live is not None:
            parts.append(f"as live calls {self.live.as_text}")
        if self.cached is not None:
            parts.append(f"with the shared prefix cached {self.cached.as_text}")
        return "; ".join([*parts, *self.exclusions])

    @property
    def exclusions(self) -> list[str]:
        """What the figures leave out, as texts."""
        if not self.unpriced:
            return [*self.notes]
        models = ", ".join(self.unpriced_models)
        without = count(self.unpriced, "request that has", "requests that have")
        return [f"without {without} no price (models: {models})", *self.notes]

    def as_json(self, prompt: str) -> str:
        """Return the estimate as the ledger keeps it.

        Args:
            prompt: The digest of the prompt, by which later estimates find the answers to it.
        """
        return json.dumps(
            {
                "prompt": prompt,
                "requests": self.requests,
                "batch": asdict(self.batch) if self.batch is not None else None,
                "input_basis": self.input_basis,
                "output_basis": self.output_basis,
                "answers": self.answers,
                "unpriced": self.unpriced,
            }
        )


@dataclass(frozen=True)
class RecordedEstimate:
    """An estimate as the ledger keeps it.

    Attributes:
        prompt: The digest of the prompt.
        batch: The cost in batches; `None` if it was not known.
        is_known: Whether every request had a price.
    """

    prompt: str
    batch: Range | None
    is_known: bool

    @staticmethod
    def begins(prompt: str) -> str:
        """Return what the estimates of a prompt begin with, as the ledger keeps them."""
        return json.dumps({"prompt": prompt}).removesuffix("}")

    @classmethod
    def of(cls, recorded: str | None) -> RecordedEstimate | None:
        """Read it; `None` without one."""
        if recorded is None:
            return None
        values = json.loads(recorded)
        batch = Range(**values["batch"]) if values["batch"] is not None else None
        return cls(values["prompt"], batch, batch is not None and not values["unpriced"])

    def error_percent(self, picodollars: int) -> float | None:
        """Return by how many percent an actual cost is above what was expected; `None` if nothing was."""
        expected = self.batch.expected if self.batch is not None else None
        return 100 * (picodollars - expected) / expected if expected else None
