"""Tools whose use costs something that answers do not tell."""

from __future__ import annotations

from batch_assets.core.pipeline.pipeline import Pipeline


def not_in_costs(pipeline: Pipeline) -> str | None:
    """Return what the bill has and no answer of a pipeline tells; `None` if there is nothing like that.

    Code execution is billed by the time of its container.
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool
    """
    tools = pipeline.template.outline().get("tools")
    types = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    if any(isinstance(type_, str) and type_.startswith("code_execution") for type_ in types):
        return "the container time of code execution, which answers do not tell"
    return None
