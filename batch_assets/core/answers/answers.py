"""Turn answers into columns of results: typed columns, tool calls, and why an answer has no typed columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.answers.parsed_answers import ArrowColumns, ParseMessage, parsed_columns
from batch_assets.core.answers.result_columns import TOOL_CALLS
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.json_text import dump, load_exactly

# Reasons why a model stops before its answer is complete.
# https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
REFUSED = "refusal"
TRUNCATED = {
    "max_tokens": "cut off at max_tokens",
    "pause_turn": "paused before its end",
    "model_context_window_exceeded": "cut off at the end of the model's context window",
}


class Answers:
    """The columns of results, after response_text, that depend on the pipeline.

    Args:
        output: The typed columns; `None` for none.
        tool: The tool whose input the typed columns hold; `None` to parse the text of the answer.
        tool_calls: Whether there is a column with the tool calls.
        parse: Makes the typed columns from a whole message; `None` to parse the answer as JSON.

    Attributes:
        fields: The fields of these columns, in order.
        classes: The values of typed columns that have only some; see `OutputSchema.classes`.
    """

    def __init__(
        self,
        output: OutputSchema | ArrowColumns | None,
        tool: str | None,
        tool_calls: bool,
        parse: ParseMessage | None = None,
    ) -> None:
        self._output, self._tool, self._parse = output, tool, parse
        typed = [pa.field(name, type_) for name, type_ in output.types.items()] if output else []
        self.classes = output.classes if output is not None else {}
        self.fields = [*typed, *([TOOL_CALLS] if tool_calls else [])]

    def add(self, columns: dict[str, Any]) -> int:
        """Add these columns to those of a slice of results.

        An answer that does not match keeps the result_type `succeeded`, and gets an error_type and error_message.

        Args:
            columns: The columns of the slice by name, those of the response included. Changed in place.

        Returns:
            The number of answers that do not match.
        """
        if not self.fields:
            return 0
        # Not a constant of the module: making the first scalar imports pandas, which most commands do not need.
        no_text = pa.scalar(None, pa.string())
        succeeded = pc.equal(columns["result_type"], ResultType.SUCCEEDED)
        texts = pc.if_else(succeeded, columns["response_text"], no_text)
        if self.fields[-1] == TOOL_CALLS or self._tool is not None:
            messages = pc.if_else(succeeded, columns["response_json"], no_text).to_pylist()
            calls = [_calls(message) if message is not None else [] for message in messages]
            columns[TOOL_CALLS.name] = pa.array([row_calls or None for row_calls in calls], TOOL_CALLS.type)
            if self._tool is not None:
                texts = pa.array([_input(row_calls, self._tool) for row_calls in calls], pa.string())
        if self._output is None:
            return 0
        if self._parse is not None:
            messages = pc.if_else(succeeded, columns["response_json"], no_text).to_pylist()
            arrays, problems = parsed_columns(messages, self._parse, self._output)
        else:
            assert isinstance(self._output, OutputSchema)
            arrays, problems = self._output.columns(_combined(texts))
            unanswered = pc.and_(succeeded, pc.is_null(texts))
            for number in pc.indices_nonzero(unanswered).to_pylist():
                lack = f"does not call the tool {self._tool!r}" if self._tool is not None else "holds no text"
                problems[number] = f"the answer {lack}"
        columns.update(zip(self._output.names, arrays, strict=True))
        return _add_problems(columns, problems)


def refusal(details: Any) -> str | None:
    """Return why the model refused, from the `stop_details` of its message; `None` if they do not say."""
    if not isinstance(details, Mapping):
        return None
    category, explanation = (
        value if isinstance(value, str) and value else None
        for value in (details.get("category"), details.get("explanation"))
    )
    if category is None and explanation is None:
        return None
    return f"the model refused{f' ({category})' if category else ''}{f': {explanation}' if explanation else ''}"


def _add_problems(columns: dict[str, Any], problems: list[str | None]) -> int:
    """Write into error_type and error_message why answers do not match; return how many do not."""
    reasons = [
        _reason(problem, columns["stop_reason"][number].as_py(), columns["error_message"][number].as_py())
        if problem
        else None
        for number, problem in enumerate(problems)
    ]
    messages = pa.array(reasons, pa.string())
    columns["error_message"] = pc.if_else(messages.is_valid(), messages, columns["error_message"])
    columns["error_type"] = pc.if_else(messages.is_valid(), ErrorType.INVALID_OUTPUT, columns["error_type"])
    return len(reasons) - reasons.count(None)


def _reason(problem: str, stop_reason: str | None, message: str | None) -> str:
    if stop_reason == REFUSED:
        return message or "the model refused"
    return f"{TRUNCATED[stop_reason]}: {problem}" if stop_reason in TRUNCATED else problem


def _calls(message: str) -> list[dict[str, str]]:
    """The tool calls in a raw message, without those of server tools."""
    content = load_exactly(message.encode()).get("content") or []
    return [
        {"id": block.get("id"), "name": block.get("name"), "input": dump(block.get("input"))}
        for block in content
        if block.get("type") == "tool_use"
    ]


def _input(calls: list[dict[str, str]], tool: str) -> str | None:
    """The input of the first call of a tool, as JSON; `None` if it is not called."""
    return next((call["input"] for call in calls if call["name"] == tool), None)


def _combined(texts: Any) -> pa.StringArray:
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
