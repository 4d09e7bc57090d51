"""Find schemas in the params: that of a forced tool, those of strict tools, and a misplaced output schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.core.template.template_names import is_template

_TEXTS = frozenset({"description", "title", "$comment"})


@dataclass(frozen=True)
class ForcedTool:
    """The tool that every answer has to call.

    Attributes:
        name: The name of the tool.
        field: The field of the pipeline file with its schema.
        schema: The JSON Schema of its input.
    """

    name: str
    field: str
    schema: dict[str, Any]


def forced_tool(params: Mapping[str, Any]) -> ForcedTool | None:
    """Find the tool that `tool_choice` forces.

    Returns:
        The tool, or `None` if no tool is forced, or if its name or schema depends on the row.
    """
    choice = params.get("tool_choice")
    if not isinstance(choice, Mapping) or choice.get("type") != "tool":
        return None
    for field, tool in _tools(params):
        schema = tool.get("input_schema")
        if tool.get("name") == choice.get("name") and isinstance(schema, dict) and _is_literal(schema):
            return ForcedTool(str(tool["name"]), f"{field}.input_schema", schema)
    return None


def strict_schemas(params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (field, schema) of each tool with `strict: true`, whose input the API makes match the schema."""
    for field, tool in _tools(params):
        if tool.get("strict") is True and isinstance(tool.get("input_schema"), dict):
            yield f"{field}.input_schema", tool["input_schema"]


def tool_schemas(params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (field, schema) of each tool whose schema is the same for every row."""
    for field, tool in _tools(params):
        if isinstance(tool.get("input_schema"), dict) and _is_literal(tool["input_schema"]):
            yield f"{field}.input_schema", tool["input_schema"]


def has_schema(output_config: Any) -> bool:
    """Whether the params hold an output schema that is the same for every row and belongs in `output_schema`."""
    form = output_config.get("format") if isinstance(output_config, Mapping) else None
    schema = form.get("schema") if isinstance(form, Mapping) else None
    return isinstance(schema, dict) and _is_literal(schema)


def _tools(params: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    tools = params.get("tools")
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, Mapping):
            yield f"params.tools[{number}]", tool


def _is_literal(value: Any) -> bool:
    """Whether a schema demands the same of every row. Its descriptions may still be templates."""
    if isinstance(value, str):
        return not is_template(value)
    if isinstance(value, dict):
        return all((key in _TEXTS and isinstance(part, str)) or _is_literal(part) for key, part in value.items())
    return all(map(_is_literal, value)) if isinstance(value, list) else True
