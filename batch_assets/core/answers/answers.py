"""What answers become in the table of results: typed columns, calls of tools, and why an answer has no columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.answers.parsed_answers import ArrowColumns, ParseMessage, parsed_columns
from batch_assets.core.answers.result_columns import TOOL_CALLS
from batch_assets.core.io.json_text import dump, load_exactly

# Why a model stopped before its answer was whole.
# https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
REFUSED = "refusal"
TRUNCATED = {
    "max_tokens": "cut off at max_tokens",
    "model_context_window_exceeded": "cut off at the end of the model's context window",
}


class Answers:
    """The columns that hang on what was asked, behind response_text.

    Args:
        output: the typed columns.
        tool: the tool whose input they hold; None for the text of the answer.
        tool_calls: whether calls of tools have a column.
        parse: makes the typed columns of whole messages, in the place of the answer's JSON.

    Attributes:
        fields: of the table, in order.
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
        self.fields = [*typed, *([TOOL_CALLS] if tool_calls else [])]

    def add(self, columns: dict[str, Any]) -> int:
        """Adds the columns to those of a slice. A succeeded answer that does not match stays so and says why.

        Args:
            columns: by name, result_type and the response's among them; error_type and error_message of answers
                that do not match are replaced.

        Returns:
            How many do not match.
        """
        if not self.fields:
            return 0
        # Made here: at the first scalar pyarrow imports pandas, which most of the commands do without.
        no_text = pa.scalar(None, pa.string())
        succeeded = pc.equal(columns["result_type"], "succeeded")
        texts = pc.if_else(succeeded, columns["response_text"], no_text)
        if self.fields[-1] == TOOL_CALLS or self._tool is not None:
            messages = pc.if_else(succeeded, columns["response_json"], no_text).to_pylist()
            calls = [_calls(message) if message is not None else [] for message in messages]
            columns[TOOL_CALLS.name] = pa.array([some or None for some in calls], TOOL_CALLS.type)
            if self._tool is not None:
                texts = pa.array([_input(some, self._tool) for some in calls], pa.string())
        if self._output is None:
            return 0
        if self._parse is not None:
            messages = pc.if_else(succeeded, columns["response_json"], no_text).to_pylist()
            arrays, problems = parsed_columns(messages, self._parse, self._output)
        else:
            assert isinstance(self._output, OutputSchema)
            arrays, problems = self._output.columns(_whole(texts))
            unanswered = pc.and_(succeeded, pc.is_null(texts))
            for number in pc.indices_nonzero(unanswered).to_pylist():
                called = f"does not call the tool {self._tool!r}" if self._tool is not None else "holds no text"
                problems[number] = f"the answer {called}"
        columns.update(zip(self._output.names, arrays, strict=True))
        return _say_why(columns, problems)


def _say_why(columns: dict[str, Any], problems: list[str | None]) -> int:
    """Puts into the columns why answers do not match; returns how many do not."""
    reasons = [
        _because(problem, columns["stop_reason"][number].as_py()) if problem else None
        for number, problem in enumerate(problems)
    ]
    why = pa.array(reasons, pa.string())
    columns["error_message"] = pc.if_else(why.is_valid(), why, columns["error_message"])
    columns["error_type"] = pc.if_else(why.is_valid(), "invalid_output", columns["error_type"])
    return len(reasons) - reasons.count(None)


def _because(problem: str, stop_reason: str | None) -> str:
    if stop_reason == REFUSED:
        return "the model refused"
    return f"{TRUNCATED[stop_reason]}: {problem}" if stop_reason in TRUNCATED else problem


def _calls(message: str) -> list[dict[str, str]]:
    """The calls of tools in a raw message. What server tools were given and found stays in the message."""
    content = load_exactly(message.encode()).get("content") or []
    return [
        {"id": block.get("id"), "name": block.get("name"), "input": dump(block.get("input"))}
        for block in content
        if block.get("type") == "tool_use"
    ]


def _input(calls: list[dict[str, str]], tool: str) -> str | None:
    """The input of the first call of a tool, as JSON."""
    return next((call["input"] for call in calls if call["name"] == tool), None)


def _whole(texts: Any) -> pa.StringArray:
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
