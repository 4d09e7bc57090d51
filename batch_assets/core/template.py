"""One row of the dataset -> the exact bytes of one request's params. Compiled once, constant parts once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import orjson
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batch_assets.core.errors import ConfigError
from batch_assets.core.values import TEXT_KEYS, RowRejectedError, as_text, checked, dump, to_base64

Row = Mapping[str, Any]
_Part = bytes | Callable[[Row], bytes]

# A template must give the same bytes for the same row, or the row would be asked again at every run.
_RANDOM_GLOBALS = ("lipsum",)
_RANDOM_FILTERS = ("random",)


class Template:
    """The compiled params of a pipeline.

    Every string is a Jinja template over the row; a string that is one whole expression keeps the
    value's own type. In lists, a value that is a list is spliced in and null drops the entry.

    Attributes:
        columns: the dataset columns that the templates read.

    Errors:
        ConfigError: a template that cannot be compiled, naming file and field.
    """

    def __init__(self, params: Mapping[str, Any], folder: Path, source: str) -> None:
        self._source = source
        self._read_file: Callable[[str], bytes] | None = None
        self._environment = self._make_environment(folder)
        self.columns: set[str] = set()
        self._where: dict[str, str] = {}
        self._parts = _merge(self._compile(dict(params), "params", text=False))

    def render(self, row: Row) -> bytes:
        """The params of one row as JSON bytes, in the author's key order.

        Errors:
            RowRejectedError: the row cannot become a request.
        """
        return b"".join([part if type(part) is bytes else part(row) for part in self._parts])  # type: ignore[operator]

    def where(self, column: str) -> str:
        """The first field whose template reads the column."""
        return self._where[column]

    def read_files_with(self, reader: Callable[[str], bytes]) -> None:
        """Gives the filter `file_base64` its files: `reader` takes a path within the dataset's folder."""
        self._read_file = reader

    def _make_environment(self, folder: Path) -> ImmutableSandboxedEnvironment:
        environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined,
            loader=jinja2.FileSystemLoader(folder),
            finalize=lambda value: "" if value is None else value,
            auto_reload=False,
        )
        for name in _RANDOM_GLOBALS:
            environment.globals.pop(name, None)
        for name in _RANDOM_FILTERS:
            environment.filters.pop(name, None)
        environment.filters["base64"] = to_base64
        environment.filters["file_base64"] = self._file_base64
        return environment

    def _file_base64(self, path: str) -> str:
        if self._read_file is None:
            raise RowRejectedError("template_error", "file_base64 has no dataset folder to read from")
        return to_base64(self._read_file(path))

    def _compile(self, value: Any, field: str, text: bool) -> list[_Part]:
        if isinstance(value, str):
            return [self._compile_string(value, field, text)]
        if isinstance(value, Mapping):
            return self._compile_object(value, field)
        if isinstance(value, list):
            return self._compile_list(value, field)
        if value is None and text:
            raise ConfigError(self._source, field, "null where the API wants text")
        try:
            return [orjson.dumps(value)]
        except TypeError:
            problem = f"a {type(value).__name__} has no JSON form: put it in quotes"
            raise ConfigError(self._source, field, problem) from None

    def _compile_object(self, value: Mapping[str, Any], field: str) -> list[_Part]:
        parts: list[_Part] = [b"{"]
        for position, (key, sub) in enumerate(value.items()):
            parts.append((b"," if position else b"") + orjson.dumps(str(key)) + b":")
            parts += self._compile(sub, f"{field}.{key}", text=key in TEXT_KEYS)
        return [*parts, b"}"]

    def _compile_list(self, value: list[Any], field: str) -> list[_Part]:
        names = [f"{field}[{position}]" for position in range(len(value))]
        if not any(
            isinstance(entry, str) and self._expression(entry, name) is not None
            for entry, name in zip(value, names, strict=True)
        ):
            parts: list[_Part] = [b"["]
            for position, (entry, name) in enumerate(zip(value, names, strict=True)):
                parts += [b","] if position else []
                parts += self._compile(entry, name, text=False)
            return [*parts, b"]"]
        entries = [
            (self._compile_expression(entry, name), True)
            if isinstance(entry, str) and self._expression(entry, name) is not None
            else (_merge(self._compile(entry, name, text=False)), False)
            for entry, name in zip(value, names, strict=True)
        ]
        return [_splicing_list(entries, field)]

    def _compile_string(self, source: str, field: str, text: bool) -> _Part:
        if self._expression(source, field) is not None:
            evaluate = self._compile_expression(source, field)
            check = as_text if text else checked
            return lambda row: dump(check(evaluate(row), field), field)
        if not any(mark in source for mark in ("{{", "{%", "{#")):
            return self._constant(source, field, text)
        try:
            template = self._environment.from_string(source)
            columns = self._columns_of(source)
        except jinja2.TemplateError as error:
            raise ConfigError(self._source, field, _describe(error)) from None
        if not columns:
            try:
                rendered = template.render()
            except RowRejectedError:
                pass  # it reads a file of the dataset's folder, which is not known yet
            except Exception as error:  # whatever fails without a row fails for every row
                raise ConfigError(self._source, field, _describe(error)) from None
            else:
                return self._constant(rendered, field, text)
        self._note(columns, field)
        plain = _plain_parts(self._environment.parse(source), columns)
        if plain is not None:
            return lambda row: dump(
                as_text(_concatenate(plain, row), field) if text else _concatenate(plain, row), field
            )

        def render(row: Row) -> bytes:
            try:
                rendered = template.render(row)
            except RowRejectedError:
                raise
            except Exception as error:  # whatever a template does to a row is that row's fault
                raise RowRejectedError("template_error", f"{field}: {_describe(error)}") from None
            return dump(as_text(rendered, field) if text else rendered, field)

        return render

    def _constant(self, value: str, field: str, text: bool) -> bytes:
        if text and not value.strip():
            raise ConfigError(self._source, field, "empty text: the API refuses it")
        try:
            return orjson.dumps(value)
        except TypeError:
            problem = "the text is not valid Unicode (a lone surrogate)"
            raise ConfigError(self._source, field, problem) from None

    def _expression(self, source: str, field: str) -> str | None:
        """The expression inside a string that is one whole `{{ expression }}`, else None."""
        stripped = source.strip()
        if not (stripped.startswith("{{") and stripped.endswith("}}")):
            return None
        try:
            body = self._environment.parse(stripped).body
        except jinja2.TemplateError as error:
            raise ConfigError(self._source, field, _describe(error)) from None
        if len(body) != 1 or not isinstance(body[0], jinja2.nodes.Output) or len(body[0].nodes) != 1:
            return None
        if isinstance(body[0].nodes[0], jinja2.nodes.TemplateData):
            return None
        inner = stripped[2:-2]
        inner = inner[1:] if inner[:1] in ("-", "+") else inner
        return inner[:-1] if inner[-1:] in ("-", "+") else inner

    def _compile_expression(self, source: str, field: str) -> Callable[[Row], Any]:
        inner = self._expression(source, field) or ""
        name = inner.strip()
        try:
            self._note(self._columns_of(source), field)
            if name.isidentifier() and name in self.columns:
                return lambda row: row[name]
            compiled = self._environment.compile_expression(inner, undefined_to_none=False)
        except jinja2.TemplateError as error:
            raise ConfigError(self._source, field, _describe(error)) from None

        def evaluate(row: Row) -> Any:
            try:
                value = compiled(row)
            except RowRejectedError:
                raise
            except Exception as error:  # as in render above
                raise RowRejectedError("template_error", f"{field}: {_describe(error)}") from None
            if isinstance(value, jinja2.Undefined):
                raise RowRejectedError("template_error", f"{field}: {value._undefined_message}")
            return value

        return evaluate

    def _note(self, columns: set[str], field: str) -> None:
        self.columns |= columns
        for column in columns:
            self._where.setdefault(column, field)

    def _columns_of(self, source: str) -> set[str]:
        """Names that a template, and what it includes, takes from the row."""
        columns: set[str] = set()
        # A template that is included also sees the variables of the one that includes it.
        waiting: list[tuple[str, str | None, frozenset[str]]] = [(source, None, frozenset())]
        seen = set()
        while waiting:
            text, file, given = waiting.pop()
            tree = self._environment.parse(text, name=file)
            columns |= jinja2.meta.find_undeclared_variables(tree) - given
            names = tree.find_all(jinja2.nodes.Name)
            given |= {name.name for name in names if name.ctx in ("store", "param")}
            for name in jinja2.meta.find_referenced_templates(tree):
                if name is not None and (name, given) not in seen:
                    seen.add((name, given))
                    loader = self._environment.loader
                    assert loader is not None
                    waiting.append((loader.get_source(self._environment, name)[0], name, given))
        return columns - set(self._environment.globals)


def _plain_parts(tree: jinja2.nodes.Template, columns: set[str]) -> list[tuple[bool, str]] | None:
    """(is a column, text or column) for a template of nothing but text and columns, which most are.

    Such a template is put together here: Jinja takes ten times as long to set up a context for it.
    """
    parts: list[tuple[bool, str]] = []
    for output in tree.body:
        if not isinstance(output, jinja2.nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, jinja2.nodes.TemplateData):
                parts.append((False, node.data))
            elif isinstance(node, jinja2.nodes.Name) and node.name in columns:
                parts.append((True, node.name))
            else:
                return None
    return parts


def _concatenate(parts: list[tuple[bool, str]], row: Row) -> str:
    """What Jinja would make of the parts: null is nothing, everything else its text."""
    texts = []
    for is_column, part in parts:
        value = row[part] if is_column else part
        texts.append(value if type(value) is str else "" if value is None else str(value))
    return "".join(texts)


def _splicing_list(entries: list[tuple[Any, bool]], field: str) -> Callable[[Row], bytes]:
    """A list of which some entries are expressions: lists are spliced in, null drops the entry."""

    def render(row: Row) -> bytes:
        items: list[bytes] = []
        for entry, is_expression in entries:
            if not is_expression:
                items.append(b"".join([part if type(part) is bytes else part(row) for part in entry]))
                continue
            value = entry(row)
            if value is not None:
                values = value if isinstance(value, list | tuple) else [value]
                items += [dump(checked(item, field), field) for item in values]
        if not items:
            raise RowRejectedError("empty_prompt", f"{field}: nothing is left of the list")
        return b"[" + b",".join(items) + b"]"

    return render


def _merge(parts: list[_Part]) -> list[_Part]:
    merged: list[_Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _describe(error: Exception) -> str:
    if isinstance(error, jinja2.TemplateNotFound):
        return f"the file {error.name!r} is not beside the pipeline file"
    if isinstance(error, jinja2.TemplateSyntaxError):
        where = f"{error.name}, line {error.lineno}" if error.name else f"line {error.lineno}"
        return f"{error.message} ({where})"
    return str(error) or type(error).__name__
