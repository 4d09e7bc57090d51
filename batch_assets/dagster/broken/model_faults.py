"""What Dagster's own models refuse in a pipeline file, such as `post_processing`, as faults of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batch_assets.core.pipeline.faults import KEYS, Fault, field_line, readable_part

POST_PROCESSING = "post_processing"
"""The key of a document whose fields are Dagster's."""
WANTED = {
    "automation_condition": 'give a template that makes one, such as "{{ dg.AutomationCondition.eager() }}"',
    "freshness_policy": 'give a template that makes one, such as "{{ daily() }}" of template_vars_module',
    "partitions_def": "give a map of its fields, with `type`",
    "owners": 'give a list of e-mail addresses and teams, such as ["team:data"]',
    "tags": "give a map",
    "metadata": "give a map",
    "kinds": "give a list, as in [one, two]",
    "deps": "give a list of asset keys",
    "description": "give a text",
    "code_version": "give a text; put it in quotes if it is a number",
    "group_name": "give a text; put it in quotes if it is a number",
    "skippable": "give true or false",
    "target": "give the key of an asset of this file, such as name/results, or a selection, such as key:name/*",
    "attributes": "give a map of its fields",
    "assets": "give a list of maps with `target` and `attributes`",
}
"""What fields of `post_processing` take."""
_PROBLEMS = {
    "extra_forbidden": "there is no such field: correct its name or remove it",
    "missing": "this field is required",
    "dict_type": "give a map of its fields",
    "list_type": "give a list",
    "tuple_type": "give a list",
    "is_instance_of": "give a list",  # Dagster's models have no other classes
    "model_type": "give a map of its fields",
    "model_attributes_type": "give a map of its fields",
    "string_type": "give a text",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
}
# These say more than what a field takes.
_OF_NAMES = ("extra_forbidden", "missing")
# Pydantic tells of each kind of value that a field may have, and of a template in place of any of them.
_NO_TEMPLATE = "string_type"
_Steps = tuple[str, ...]


def model_faults(error: ValidationError, text: str | None, source: str, document: int = 0) -> list[Fault]:
    """Return one fault for each field that is wrong.

    Args:
        error: The error of a model.
        text: The text of the file; `None` if it is not YAML.
        source: The file, as the user would open it.
        document: The position of the pipeline among the documents of the file.
    """
    content = readable_part(text, document) if text is not None else {}
    faults: dict[_Steps, ErrorDetails] = {}
    for details in sorted(error.errors(), key=lambda each: each["type"] == _NO_TEMPLATE):
        steps = _steps(details, content)
        is_known = any(known[: len(steps)] == steps for known in faults)
        if steps not in faults and not (details["type"] == _NO_TEMPLATE and is_known):
            faults[steps] = details
    return [_fault(steps, details, text, source, document) for steps, details in faults.items()]


def _steps(details: ErrorDetails, content: Mapping[str, Any]) -> _Steps:
    """Return the field of an error as the file has it, without the names of the models that were tried."""
    # Dagster joins the parts, and adds file and line.
    parts = ".".join(map(str, details["loc"])).partition(" at ")[0].split(".")
    steps: list[str] = []
    value: Any = content
    if parts[0] not in KEYS and POST_PROCESSING in content:
        parts.insert(0, POST_PROCESSING)
    for position, part in enumerate(parts):
        is_missing = details["type"] == "missing" and position == len(parts) - 1
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif content and not is_missing:
            continue
        steps.append(part)
    return tuple(steps)


def _fault(steps: _Steps, details: ErrorDetails, text: str | None, source: str, document: int) -> Fault:
    field = ".".join(steps)
    wanted = WANTED.get(steps[-1]) if steps[:1] == (POST_PROCESSING,) else None
    problem = _PROBLEMS.get(details["type"], details["msg"])
    if wanted is not None and details["type"] not in _OF_NAMES:
        problem = wanted
    return Fault(source, field_line(text or "", field, document), field, problem)
