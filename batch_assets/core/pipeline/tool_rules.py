"""Rules between the functions of tools, the tools in the params, and `retry.paused`."""

from __future__ import annotations

from collections.abc import Mapping

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.quoting import printable
from batch_assets.core.template.template_names import is_template
from batch_assets.core.text import nearest

_FIELD = "tool_functions"


def tools_problem(pipeline: Pipeline) -> tuple[str, str] | None:
    """Check that the functions of tools can be called, and that a turn with them can end.

    Returns:
        (field, what is wrong and what to do), or `None` if nothing is wrong.
    """
    functions = pipeline.hooks.tool_functions
    if not isinstance(functions, Mapping) or not all(map(callable, functions.values())):
        return _FIELD, "give a map of functions by the names of their tools, such as {'look_up': look_up}"
    if not functions:
        return None
    if not pipeline.config.retry.paused:
        return "retry.paused", "with tool_functions, write how often a turn may go on with the results of tools"
    known = _known_tools(pipeline)
    if known is None:
        return None
    if unknown := sorted(functions.keys() - known):
        meant = nearest(unknown[0], known)
        hint = (
            f"did you mean {meant!r}?"
            if meant is not None
            else f"tools here: {', '.join(sorted(known)) or 'none'}"
        )
        return _FIELD, f"params.tools has no tool {printable(unknown[0])!r}: {hint}"
    return _endless(pipeline, has_all=functions.keys() == known)


def _known_tools(pipeline: Pipeline) -> set[str] | None:
    """The names of the tools in the params; `None` if they depend on the row."""
    tools = pipeline.config.params.get("tools", [])
    if pipeline.hooks.render_request is not None or not isinstance(tools, list):
        return None
    given = [tool.get("name") if isinstance(tool, Mapping) else None for tool in tools]
    names = {name for name in given if isinstance(name, str) and not is_template(name)}
    return names if len(names) == len(given) else None


def _endless(pipeline: Pipeline, *, has_all: bool) -> tuple[str, str] | None:
    """Check that `tool_choice` does not force calls with results for as long as the turn lasts."""
    choice = pipeline.config.params.get("tool_choice")
    if not isinstance(choice, Mapping):
        return None
    forced = choice.get("name") if choice.get("type") == "tool" else None
    if forced in pipeline.hooks.tool_functions or (choice.get("type") == "any" and has_all):
        return "params.tool_choice", (
            "every answer is then a call that tool_functions answer, so that no turn would end: leave it out, or "
            "leave a tool without a function, whose call is the last of its turn"
        )
    return None
