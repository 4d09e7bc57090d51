"""One row of the dataset -> the exact bytes of one request's params. Compiled once, constant parts once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import orjson

from batch_assets.core.errors import ConfigError
from batch_assets.core.template_limits import LimitedEnvironment
from batch_assets.core.template_names import ROW, SELF, NameFinder, Names, plain_parts
from batch_assets.core.values import TEXT_KEYS, RowRejectedError, as_text, checked, dump, printed, to_base64

Row = Mapping[str, Any]
_Part = bytes | Callable[[Row], bytes]

# A template must give the same bytes for the same row, or the row would be asked again at every run.
_RANDOM_GLOBALS = ("lipsum",)
_RANDOM_FILTERS = ("random",)


class Template:
    """The compiled params of a pipeline.

    Every string is a Jinja template over the row; a string that is one whole expression keeps the
    value's own type. In lists, a value that is a list is spliced in and null drops the entry.

    Columns are read by name: `{{ text }}`. A column whose name Jinja does not take (`Review Text`, `none`)
    is read from the whole row: `{{ row['Review Text'] }}`. A column comes before a function of Jinja's and
    before `row` itself, if it has that name.

    Attributes:
        columns: the dataset columns that the templates read; `fit` settles them.

    Errors:
        ConfigError: a template that cannot be compiled, naming file and field.
    """

    def __init__(self, params: Mapping[str, Any], folder: Path, source: str) -> None:
        self._source = source
        self._read_file: Callable[[str], bytes] | None = None
        self._environment = self._make_environment(folder)
        self._finder = NameFinder(self._environment)
        self._names = Names()
        self._where: dict[str, str] = {}
        self._parts = _merge(self._compile(dict(params), "params", text=False))
        self._offers_row = self._names.row
        self._whole_row: list[str] | None = None
        self.columns = self._names.columns | self._names.in_row

    def fit(self, dataset: Iterable[str]) -> None:
        """Settles `columns`, given the names of the dataset's columns in order.

        Errors:
            ConfigError: the template reads a column that Jinja cannot read by its name.
        """
        names, known = self._names, list(dict.fromkeys(dataset))
        if names.itself and SELF in known:
            problem = "in a template `self` is the template; the column of that name is `row['self']`"
            raise ConfigError(self._source, self._where[SELF], problem)
        columns = names.columns | (names.functions & set(known))
        self._offers_row = names.row and ROW not in known
        self._whole_row = None
        if self._offers_row:
            columns |= names.in_row
            if names.every:
                columns |= set(known)
                self._whole_row = list(dict.fromkeys([*known, *sorted(names.in_row)]))
        elif names.row:
            columns.add(ROW)
        self.columns = columns

    def render(self, row: Row) -> bytes:
        """The params of one row as JSON bytes, in the author's key order.

        Errors:
            RowRejectedError: the row cannot become a request.
        """
        self._environment.begin()
        if self._offers_row:
            order = self._whole_row
            row = {**row, ROW: dict(row) if order is None else {name: row[name] for name in order}}
        return b"".join([part if type(part) is bytes else part(row) for part in self._parts])  # type: ignore[operator]

    def where(self, column: str) -> str:
        """The first field whose template reads the column."""
        return self._where[column]

    def read_files_with(self, reader: Callable[[str], bytes]) -> None:
        """Gives the filter `file_base64` its files: `reader` takes a path within the dataset's folder."""
        self._read_file = reader

    def _make_environment(self, folder: Path) -> LimitedEnvironment:
        environment = LimitedEnvironment(
            undefined=jinja2.StrictUndefined,
            loader=jinja2.FileSystemLoader(folder),
            finalize=printed,
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
            names = self._finder.find(source)
        except jinja2.TemplateError as error:
            raise ConfigError(self._source, field, _describe(error)) from None
        self._note(names, field)
        if names.constant:
            try:
                rendered = template.render()
            except RowRejectedError:
                pass  # it reads a file of the dataset's folder, which is not known yet
            except Exception as error:  # whatever fails without a row fails for every row
                raise ConfigError(self._source, field, _describe(error)) from None
            else:
                return self._constant(rendered, field, text)
        plain = plain_parts(self._environment.parse(source), names.columns)
        if plain is not None:
            return _plain(plain, field, text)

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
            names = self._finder.find(source)
            self._note(names, field)
            if name.isidentifier() and name in names.columns:
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
            return list(value) if isinstance(value, Iterator) else value

        return evaluate

    def _note(self, names: Names, field: str) -> None:
        self._names.add(names)
        for name in names.all:
            self._where.setdefault(name, field)


def _plain(parts: list[tuple[bool, str]], field: str, text: bool) -> Callable[[Row], bytes]:
    """Text and columns, put together as Jinja would: null is nothing, everything else its text."""
    constant = ["" if is_column else part for is_column, part in parts]
    columns = [(position, part) for position, (is_column, part) in enumerate(parts) if is_column]

    def render(row: Row) -> bytes:
        pieces = constant.copy()
        for position, column in columns:
            value = row[column]
            if type(value) is str:
                pieces[position] = value
            elif value is not None:
                pieces[position] = str(value)
        rendered = "".join(pieces)
        return dump(as_text(rendered, field) if text else rendered, field)

    return render


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
