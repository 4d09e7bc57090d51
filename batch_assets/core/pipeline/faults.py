"""Faults of a pipeline file with their lines, and those that keep the file from being read at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.yaml_values import YAML_LOADER, unreadable_value
from batch_assets.core.repeated_keys import RepeatedKeyError, check_yaml
from batch_assets.core.text import nearest

# The steps of a field: names, and positions in lists.
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
# The field at the beginning of a text about a pipeline, perhaps with the file that the template includes.
_FIELD = re.compile(r"([\w.\[\]]+)(?: \([^)]*\))?: ")
# A type with the module or package that has it. A dot before it means the folder of the file.
_TYPE = re.compile(r"\.?[A-Za-z_]\w*(\.[A-Za-z_]\w*)+|\.[A-Za-z_]\w*")
PIPELINE_TYPE = "a pipeline has batch_assets.MessageBatchComponent"
"""What to do about a wrong `type`."""
# A value that begins with a template and has no quotes.
_UNQUOTED = re.compile(r"(?::|-)\s+(\{[{%][^\n]*?)\s*$")
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_LINE = re.compile(r"line (\d+)")
# Lines at the end of a file that is not YAML, which are left out one by one until the rest can be read.
_MOST_LEFT_OUT = 500
KEYS = ("type", "attributes", "template_vars_module", "requirements", "post_processing")
"""The keys of a document that Dagster knows."""
_NEEDS = "the keys `type` (batch_assets.MessageBatchComponent) and `attributes`"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a pipeline file.

    Attributes:
        source: The file, as the user would open it.
        line: Its line, from 1; `None` if it is not known.
        field: Dotted path of the field; "" for the file as a whole.
        problem: What is wrong and what to do.
    """

    source: str
    line: int | None
    field: str
    problem: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line is not None else ""
        return ": ".join(filter(None, [f"{self.source}{line}", self.field, self.problem]))


def faults_of(error: ConfigError, text: str | None, document: int = 0) -> list[Fault]:
    """Return the faults that an error names, with the lines of their fields.

    Args:
        error: The error of a pipeline file.
        text: The text of the file; `None` if there is none.
        document: The position of the pipeline among the documents of the file.
    """
    return [_fault(one, text, document) for one in (error, *error.also)]


def _fault(error: ConfigError, text: str | None, document: int) -> Fault:
    if match := _LINE.fullmatch(error.field):
        return Fault(error.source, int(match[1]), "", error.problem)
    line = field_line(text, error.field, document) if text is not None else None
    return Fault(error.source, line, error.field, error.problem)


def with_line(text: str, source: str, project: Path, name: str) -> str:
    """Return what is wrong with a pipeline that loads, with the line of its field after the file.

    Args:
        text: The text of an error or a warning, which begins with the file and the field.
        source: The file, as the user would open it.
        project: The project's folder.
        name: The name of the pipeline.
    """
    file = project / source
    field = _FIELD.match(text.removeprefix(f"{source}: "))
    if not text.startswith(f"{source}: ") or field is None or file.suffix not in (".yaml", ".yml"):
        return text
    try:
        content = file.read_text("utf-8-sig")
        documents = [document["attributes"].get("name") for document in yaml.load_all(content, Loader=YAML_LOADER)]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return text  # the file is another one than when the pipeline was loaded
    # A name that is a template is that of the only pipeline.
    line = field_line(content, field[1], documents.index(name) if name in documents else 0)
    return text.replace(source, f"{source}:{line}", 1) if line is not None else text


def field_line(text: str, field: str, document: int = 0) -> int | None:
    """Return the line of a field, or of the innermost block around it that the file has.

    Args:
        text: The text of the pipeline file.
        field: Dotted path of the field within the attributes, or of a key beside them.
        document: The position of the pipeline among the documents of the file.

    Returns:
        The line, from 1; `None` if there is no field, or the file is not YAML or has no block around it.
    """
    try:
        documents = list(yaml.compose_all(text, Loader=YAML_LOADER))
    except yaml.YAMLError:
        return None
    if document >= len(documents):
        return None
    steps = [position or name for position, name in _STEP.findall(field.partition(" (")[0])]
    line, value = None, documents[document]
    attributes = _child(value, "attributes")
    if attributes is not None and _child(value, steps[0] if steps else "") is None:
        line, value = (attributes[0].start_mark.line + 1 if steps else None), attributes[1]
    for step in steps:
        inner = _child(value, step)
        if inner is None:
            break
        key, value = inner
        line = key.start_mark.line + 1
    return line


def _child(node: Any, step: str) -> tuple[Any, Any] | None:
    """Return the node that has the line, and the value, of a key of a map or a position of a list."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        return node.value[int(step)], node.value[int(step)]
    return None


def depth_of(text: str) -> int:
    """Return how many maps and lists of a YAML file are within each other."""
    depth = deepest = 0
    for event in yaml.parse(text, Loader=YAML_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
    return deepest


def repeated_key(source: str, text: str) -> ConfigError | None:
    """Return which key is twice in a map of a YAML file, as an error whose field is the line; `None` if none is.

    Args:
        source: The file, as the user would open it.
        text: Its text.

    Raises:
        yaml.YAMLError: When the text is not YAML.
    """
    try:
        check_yaml(text)
    except RepeatedKeyError as error:
        line, _, problem = str(error).partition(": ")
        return ConfigError(source, line, problem)
    return None


def unreadable(source: str, text: str) -> ConfigError | None:
    """Return why a YAML file cannot be read, as an error whose field is the line; `None` if it can be read.

    Args:
        source: The file, as the user would open it.
        text: Its text.
    """
    try:
        if (repeated := repeated_key(source, text)) is not None:
            return repeated
        documents = list(yaml.compose_all(text, Loader=YAML_LOADER))
    except yaml.MarkedYAMLError as error:
        return _syntax_error(source, text, error)
    except yaml.YAMLError as error:
        return _of_text(source, text, error)
    for document in documents:
        if (key := _key_that_is_a_map(document)) is not None:
            line = key.start_mark.line + 1
            written = text.splitlines()[line - 1][key.start_mark.column - 1 :].strip()
            match = _TEMPLATE.match(written)
            return ConfigError(source, f"line {line}", _quote(match[0] if match else written))
        if not isinstance(document, yaml.MappingNode):
            return ConfigError(source, "", f"this is not a map: it needs {_NEEDS}")
        if (wrong := _keys_problem([key.value for key, _ in document.value])) is not None:
            return ConfigError(source, *wrong)
        if (wrong_type := _wrong_type(document)) is not None:
            return ConfigError(source, *wrong_type)
        if (value := unreadable_value(document)) is not None:
            return ConfigError(source, f"line {value[0]}", value[1])
    return None if documents else ConfigError(source, "", f"the file is empty: it needs {_NEEDS}")


def _keys_problem(keys: list[str]) -> tuple[str, str] | None:
    """Return the key of a document that is wrong, and why; `None` if all are right."""
    for key in keys:
        if key not in KEYS:
            meant = nearest(str(key), KEYS)
            hint = f"did you mean `{meant}`?" if meant else "the fields of a pipeline belong under `attributes`"
            return str(key), f"there is no such key: {hint}"
    return None if "type" in keys else ("", f"there is no `type`: it needs {_NEEDS}")


def _wrong_type(document: yaml.MappingNode) -> tuple[str, str] | None:
    """Return the line of a `type` that cannot be the name of a component, and why; `None` if it can."""
    node = next(value for key, value in document.value if key.value == "type")
    is_name = isinstance(node, yaml.ScalarNode) and _TYPE.fullmatch(node.value) is not None
    if is_name or node.tag not in YAML_LOADER.yaml_constructors:
        return None
    written = node.value if isinstance(node, yaml.ScalarNode) else "a map or list"
    return (
        f"line {node.start_mark.line + 1}",
        f"type: {written or 'it'} is not the name of a component: {PIPELINE_TYPE}",
    )


def _syntax_error(source: str, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    lines = text.splitlines()
    for number in (line, line - 1):
        if 1 <= number <= len(lines) and (match := _UNQUOTED.search(lines[number - 1])):
            return ConfigError(source, f"line {number}", _quote(match[1]))
    reason = ", ".join(filter(None, [error.context, error.problem]))
    remedy = "check the indentation and the quotes; a text with `: ` or ` #` in it needs quotes"
    return ConfigError(source, f"line {line}", f"this is not YAML ({reason}): {remedy}")


def _of_text(source: str, text: str, error: yaml.YAMLError) -> ConfigError:
    refused = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if refused is None:
        return ConfigError(source, "", f"this is not YAML: {' '.join(str(error).split())}")
    line = text.count("\n", 0, refused.start()) + 1
    character = f"U+{ord(refused[0]):04X}"
    return ConfigError(source, f"line {line}", f"YAML has no character {character}: remove it from the text")


def _quote(written: str) -> str:
    quote = "'" if '"' in written else '"'
    return f"YAML takes a value that begins with a brace for a map: put it in quotes, {quote}{written}{quote}"


def _key_that_is_a_map(document: Any) -> yaml.Node | None:
    """Return a map that is the key of another, which is what YAML makes of a template without quotes."""
    nodes, known = [document], set[int]()
    while nodes:
        node = nodes.pop()
        if id(node) in known or not isinstance(node, yaml.CollectionNode):
            continue
        known.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if isinstance(key, yaml.MappingNode):
                    return key
                nodes.append(value)
        else:
            nodes += node.value
    return None


def readable_part(text: str, document: int = 0) -> dict[str, Any]:
    """Return the content of a YAML file, or of as many of its first lines as can be read.

    Args:
        text: The text of the file.
        document: The position of the pipeline among the documents of the file.

    Returns:
        The keys of the document; empty if nothing can be read.
    """
    lines = text.splitlines()
    for end in range(len(lines), max(-1, len(lines) - _MOST_LEFT_OUT), -1):
        try:
            documents = list(yaml.load_all("\n".join(lines[:end]), Loader=YAML_LOADER))
        except (yaml.YAMLError, ValueError):
            continue
        read = documents[document] if document < len(documents) else None
        return read if isinstance(read, dict) else {}
    return {}
