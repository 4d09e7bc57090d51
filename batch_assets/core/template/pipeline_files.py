"""Files that a template reads when it is compiled. They must be in the pipeline's folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import orjson
import yaml

from batch_assets.core.repeated_keys import RepeatedKeyError, check_keys, check_yaml


class PipelineFileError(Exception):
    """A file beside the pipeline file is missing, cannot be read, or does not contain what its name says."""


class PipelineFiles(jinja2.BaseLoader):
    """Templates to include, and data for `load('examples.yaml')`. Each file is read once.

    Args:
        folder: The folder of the pipeline file.

    Attributes:
        digests: Of the content of every file that was read so far, by its name.

    Raises:
        PipelineFileError: When a data file cannot be loaded. Names the file.
        jinja2.TemplateError: When a template cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[str, str] = {}
        self._loaded: dict[str, Any] = {}
        self.digests: dict[str, str] = {}

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        """Return the text of a template. Jinja calls this."""
        if template not in self._texts:
            self._texts[template] = self._text(template)
        return self._texts[template], template, None

    def _text(self, template: str) -> str:
        path = self._find(template)
        if path is None:
            raise jinja2.TemplateNotFound(template)
        try:
            text = path.read_text("utf-8")
            self.digests[template] = hashlib.sha256(text.encode()).hexdigest()
            return text
        except (OSError, UnicodeDecodeError) as error:
            raise jinja2.TemplateError(f"{template} cannot be read: {_reason(error)}") from None

    def data(self, name: str) -> Any:
        """Return the data in a JSON, JSON Lines or YAML file, read once."""
        if name not in self._loaded:
            self._loaded[name] = self._read(name)
        return self._loaded[name]

    def _read(self, name: str) -> Any:
        if not isinstance(name, str):
            raise PipelineFileError(f"load takes the name of a file, not {name!r}")
        parse = _PARSERS.get(Path(name).suffix.lower())
        if parse is None:
            raise PipelineFileError(f"load cannot read {name!r}: its name must end in {', '.join(_PARSERS)}")
        path = self._find(name)
        if path is None:
            raise PipelineFileError(not_beside(name))
        try:
            content = path.read_bytes()
            self.digests[name] = hashlib.sha256(content).hexdigest()
            return parse(content.removeprefix(b"\xef\xbb\xbf"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise PipelineFileError(f"{name} cannot be read: {_reason(error)}") from None

    def _find(self, name: str) -> Path | None:
        """The path of a file; `None` if it does not exist or is outside the folder, even by a symbolic link."""
        folder = self._folder.resolve()
        if "\\" in name or "\0" in name or Path(name).is_absolute():
            return None
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None


def not_beside(name: object) -> str:
    """Return the problem text for a file that does not exist, or that a template may not read."""
    return f"the file {name!r} is not beside the pipeline file"


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _json_lines(content: bytes) -> list[Any]:
    values = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                values.append(_json(line))
            except orjson.JSONDecodeError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
            except RepeatedKeyError as error:
                raise ValueError(f"line {number}: {error}") from None
    return values


def _json(content: bytes) -> Any:
    value = orjson.loads(content)
    check_keys(content, value)
    return value


def _yaml(content: bytes) -> Any:
    check_yaml(content)
    return yaml.load(content, _Yaml)


class _Yaml(yaml.SafeLoader):
    """YAML in which only `true` and `false` are booleans, because examples often have the answers yes and no."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
# A set as a list, since its order would differ from process to process.
_Yaml.add_constructor("tag:yaml.org,2002:set", lambda loader, node: [*loader.construct_mapping(node)])  # type: ignore[arg-type]
_PARSERS: dict[str, Callable[[bytes], Any]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".yaml": _yaml,
    ".yml": _yaml,
}
