"""A pipeline's prompt and its other params as Markdown, with the files that they include; a rendered request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import TextWrapper
from typing import Any

import jinja2
import orjson
import yaml

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.template.pipeline_files import PipelineFiles
from batch_assets.core.text import count
from batch_assets.core.urls import without_secrets
from batch_assets.dagster.metadata.markdown import code, fenced

# Without a language, or with that of Markdown, Dagster would color words and set marked ones in italics.
_PLAIN = "text"
_INCLUDE = re.compile(r"""\{%[-+]?\s*include\s+(['"])(?P<name>.+?)\1[^%]*%\}""")
# Limits in characters. A longer text is cut, and a note says so.
_TEXT, _VALUE, _PARAMS = 4000, 1000, 6000
# Dagster does not wrap lines of code, and its page has room for about this many characters.
_WIDTH = 88


def prompt_as_markdown(pipeline: Pipeline) -> str:
    """Return the system prompt as text, then the other params as YAML, then the files that these include."""
    params = without_secrets(pipeline.config.params)
    files = _Files(pipeline)
    parts = [f"Declared in {code(pipeline.source)}."]
    system = params.get("system")
    if isinstance(system, str):
        del params["system"]
        parts += ["**System prompt**", _block(files.expanded(system), _PLAIN, _TEXT)]
    parts += ["**Params**", _block(_as_yaml(params), "yaml", _PARAMS)]
    for name in dict.fromkeys(name for value in _strings(params) for name in _included(value)):
        if text := files.text(name):
            parts += [f"**File {code(name)}**", _block(text, _PLAIN, _TEXT)]
    return "\n\n".join(parts)


def request_as_markdown(params: str) -> str:
    """Return the params of a rendered request as YAML, with long texts cut.

    Args:
        params: The params as JSON.
    """
    return _block(_as_yaml(orjson.loads(params)), "yaml", _PARAMS)


class _Files:
    """The files beside the pipeline file, as its templates include them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._environment = jinja2.Environment(loader=PipelineFiles(pipeline.folder))

    def text(self, name: str, within: tuple[str, ...] = ()) -> str | None:
        """Return the text of a file, with its includes replaced; None if it is missing or includes itself."""
        loader = self._environment.loader
        if loader is None or name in within:
            return None
        try:
            source = loader.get_source(self._environment, name)[0]
        except jinja2.TemplateError:
            return None  # an include that may be missing
        return self.expanded(source.rstrip("\n"), (*within, name))

    def expanded(self, template: str, within: tuple[str, ...] = ()) -> str:
        """Return a template with its includes replaced by the text of the files."""

        def text_of(include: re.Match[str]) -> str:
            text = self.text(include["name"], within)
            return include[0] if text is None else text

        return _INCLUDE.sub(text_of, template)


def _block(text: str, language: str, most: int) -> str:
    if len(text) <= most:
        return fenced(_wrapped(text), language)
    return f"{fenced(_wrapped(text[:most]), language)}\n\n*… and {count(len(text) - most, 'more character')}.*"


def _wrapped(text: str) -> str:
    """Return a text with its long lines broken between words. Further lines are indented like the first."""
    return "\n".join(part for line in text.split("\n") for part in _lines(line))


def _lines(line: str) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    wrapper = TextWrapper(
        _WIDTH,
        subsequent_indent=indent,
        expand_tabs=False,
        replace_whitespace=False,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line] if len(line) <= _WIDTH else wrapper.wrap(line)


def _as_yaml(params: dict[str, Any]) -> str:
    return yaml.dump(_short(params), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _short(value: Any) -> Any:
    """Return params with their long strings cut: they may contain a whole document."""
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    if isinstance(value, str) and len(value) > _VALUE:
        return f"{value[:_VALUE]}… and {count(len(value) - _VALUE, 'more character')}"
    return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _included(text: str) -> Iterator[str]:
    return (include["name"] for include in _INCLUDE.finditer(text))


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes text of several lines as a block."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
