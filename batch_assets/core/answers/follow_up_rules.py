"""Which answers are asked again by a follow-up request, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from batch_assets.core.answers.tool_calls import WAITS_FOR_TOOLS, calls_to_answer
from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.json_text import load_exactly

MOST_TIMES = 9
"""The most follow-ups of one kind in a chain: a custom_id has one digit for their number."""


class FollowUpKind(IntEnum):
    """Why an answer is followed by another request."""

    PAUSED = 0
    """The model paused, or waits for the results of tools: the next request continues its turn."""
    TRUNCATED = 1
    """The answer was cut off at max_tokens: the next request has a larger one."""
    INVALID = 2
    """The answer does not match the output schema: the next request says why."""


_NONE = -1
# The stop reasons of answers that are no whole answer. Of these, `invalid` asks none again: what they lack is not
# the model's mistake, or the same question would bring the same answer.
_KINDS = {"pause_turn": FollowUpKind.PAUSED, "max_tokens": FollowUpKind.TRUNCATED}
_NOT_INVALID = ("refusal", "model_context_window_exceeded", *_KINDS)


class TruncatedRule(ConfigBlock):
    """How answers that were cut off at max_tokens are asked again."""

    times: int = Field(
        default=1, ge=1, le=MOST_TIMES, description="How often an answer that was cut off is asked again."
    )
    max_tokens: Literal["x2"] | Annotated[int, Field(ge=1)] = Field(
        default="x2",
        description="max_tokens of the next request: x2 for twice as many, or a number. Never above the model's "
        "maximum.",
    )

    def raised(self, max_tokens: int, most: int | None) -> int | None:
        """Return the max_tokens of the next request; `None` if it may not be larger.

        Args:
            max_tokens: That of the request whose answer was cut off.
            most: The most that the model can write; `None` if it is not known.
        """
        wanted = 2 * max_tokens if isinstance(self.max_tokens, str) else self.max_tokens
        wanted = wanted if most is None else min(wanted, most)
        return wanted if wanted > max_tokens else None

    def may_raise(self, output_tokens: int | None, most: int | None) -> bool:
        """Whether a request whose answer was cut off after these tokens may be sent with a larger max_tokens."""
        limits = [limit for limit in (most, self.max_tokens) if isinstance(limit, int)]
        return output_tokens is None or not limits or output_tokens < min(limits)


class FollowUpRules(BaseModel):
    """Which answers of a submission are followed by another request. 0 and `None` ask none again.

    Attributes:
        invalid: How often an answer that does not match the output schema is asked again.
        truncated: How an answer that was cut off at max_tokens is asked again.
        paused: How often a turn that the model paused, or that calls tools, is continued.
        tools: The names of the tools whose calls are answered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    invalid: int = 0
    truncated: TruncatedRule | None = None
    paused: int = 0
    tools: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str | None) -> FollowUpRules | None:
        """Read what `as_text` returned."""
        return _read(text) if text is not None else None

    def as_text(self) -> str:
        """Return the rules as JSON."""
        return self.model_dump_json()

    @property
    def times(self) -> NDArray[np.int8]:
        """How often each kind is asked again: int8, shape (3,), by `FollowUpKind`."""
        truncated = self.truncated.times if self.truncated is not None else 0
        return np.array([self.paused, truncated, self.invalid], np.int8)

    @property
    def most(self) -> int:
        """The most follow-ups of a request."""
        return int(self.times.sum(dtype=int))

    @property
    def most_without_pauses(self) -> int:
        """The most follow-ups of a request that is never continued."""
        return self.most - self.paused

    @property
    def in_upper_ends(self) -> str:
        """What the upper end of an estimate has where no answer tells how many follow-ups there are."""
        return f"follow-ups only in the upper end, up to {self.most_without_pauses} for each request"

    @property
    def not_in_estimates(self) -> str:
        """What estimates leave out where nothing tells what it may cost."""
        return f"without follow-ups, of which `retry` allows up to {self.most} for each request"

    def calls_tools(self, reasons: Any, messages: Any) -> NDArray[np.bool_]:
        """Return which answers wait for the results of tools that can be given: bool, shape (n,).

        Args:
            reasons: The stop reasons of n answers.
            messages: The answers, as the API sent them.
        """
        calls = np.zeros(len(reasons), bool)
        if self.tools:
            for number in np.flatnonzero(_mask(pc.equal(reasons, WAITS_FOR_TOOLS))).tolist():
                message = messages[number].as_py()
                calls[number] = message is not None and bool(
                    calls_to_answer(load_exactly(message.encode()), self.tools)
                )
        return calls

    def kinds(
        self,
        columns: Mapping[str, Any],
        counts: NDArray[np.int8],
        most_output: Callable[[str], int | None],
        imported: NDArray[np.bool_],
    ) -> NDArray[np.int8]:
        """Decide which answers are followed by another request.

        Args:
            columns: `stop_reason`, `error_type`, `output_tokens`, `response_model` and `response_json` of n
                answers, by name. The error type is that of the table: it says which answers do not match.
            counts: The follow-ups in the chain of each answer so far, by `FollowUpKind`: int8, shape (n, 3).
            most_output: Returns the most tokens of an answer of a model; `None` if that is not known.
            imported: Which of them were imported: bool, shape (n,). No request file has what was asked, so they
                are the last of their chain.

        Returns:
            The `FollowUpKind` of the next request, -1 without one: int8, shape (n,).
        """
        reasons = columns["stop_reason"]
        kinds = np.full(len(counts), _NONE, np.int8)
        is_invalid = pc.and_(
            pc.equal(columns["error_type"], ErrorType.INVALID_OUTPUT),
            pc.invert(pc.is_in(reasons, pa.array(_NOT_INVALID))),
        )
        kinds[_mask(is_invalid)] = FollowUpKind.INVALID
        for reason, kind in _KINDS.items():
            kinds[_mask(pc.equal(reasons, reason))] = kind
        kinds[self.calls_tools(reasons, columns["response_json"])] = FollowUpKind.PAUSED
        kinds[imported] = _NONE
        return self._allowed(kinds, columns, counts, most_output)

    def may_go_on(
        self, columns: Mapping[str, Any], counts: NDArray[np.int8], most_output: Callable[[str], int | None]
    ) -> NDArray[np.bool_]:
        """Return which answers may be followed by another request, as far as their stop reasons tell: bool, (n,).

        The answers are not looked at. So one that does not match the output schema is not among them, and one that
        calls a tool without a function is.

        Args:
            columns: `stop_reason`, `output_tokens` and `response_model` of n answers, by name.
            counts: See `kinds`.
            most_output: See `kinds`.
        """
        kinds = np.full(len(counts), _NONE, np.int8)
        for reason, kind in (_KINDS | ({WAITS_FOR_TOOLS: FollowUpKind.PAUSED} if self.tools else {})).items():
            kinds[_mask(pc.equal(columns["stop_reason"], reason))] = kind
        goes_on: NDArray[np.bool_] = self._allowed(kinds, columns, counts, most_output) != _NONE
        return goes_on

    def _allowed(
        self,
        kinds: NDArray[np.int8],
        columns: Mapping[str, Any],
        counts: NDArray[np.int8],
        most_output: Callable[[str], int | None],
    ) -> NDArray[np.int8]:
        """Return the kinds without those of which there were enough. Changed in place."""
        kinds[(counts >= self.times)[np.arange(len(kinds)), kinds]] = _NONE
        for number in np.flatnonzero(kinds == FollowUpKind.TRUNCATED.value).tolist():
            assert self.truncated is not None
            tokens, model = columns["output_tokens"][number].as_py(), columns["response_model"][number].as_py()
            if not self.truncated.may_raise(tokens, most_output(model or "")):
                kinds[number] = _NONE
        return kinds


@cache
def _read(text: str) -> FollowUpRules:
    return FollowUpRules.model_validate_json(text)


def _mask(condition: Any) -> NDArray[np.bool_]:
    values = condition.combine_chunks() if isinstance(condition, pa.ChunkedArray) else condition
    mask: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask
