"""Compile one string of the params to a function that gives its value for a row, or to a constant value."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jinja2
from jinja2 import nodes

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.json_filters import from_json, to_json
from batch_assets.core.template.key_access import Absent, KeyEnvironment
from batch_assets.core.template.pipeline_files import PipelineFileError, PipelineFiles, not_beside
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.row_files import NoDatasetError, ReadFile, RowFiles
from batch_assets.core.template.template_limits import LimitedEnvironment
from batch_assets.core.template.template_names import ROW, NameFinder, Names, is_template, plain_parts
from batch_assets.core.template.text_environment import TextEnvironment
from batch_assets.core.template.values import RowRejectedError, printed, reason
from batch_assets.core.template.written import finite

Row = Mapping[str, Any]

# A template must give the same bytes for the same row, or the row would be sent again in every run.
_RANDOM_GLOBALS = ("lipsum",)
_RANDOM_FILTERS = ("random",)

_TOO_DEEP = "its recursion does not end, or is too deep: does a file include itself, or a macro call itself?"
_ONLY_INCLUDES = re.compile(r"""\{% include (?P<mark>['"])(?P<name>[^'"\\]+)(?P=mark) %\}""")
_NEWLINE = re.compile(r"\r\n|\r")


class TemplateProblemError(Exception):
    """A string cannot be compiled. The text says why."""


@dataclass(frozen=True)
class CompiledString:
    """One string of the params.

    Attributes:
        names: The names that it reads.
        whole: Whether it is one whole expression, which keeps the type of its value.
        evaluate: Returns its value for a row, or raises RowRejectedError.
        column: The column, if the string is nothing but one column.
        plain: The text and columns, if the string is nothing else; see `plain_parts`.
    """

    names: Names
    whole: bool
    evaluate: Callable[[Row], Any]
    column: str | None = None
    plain: list[tuple[bool, str]] | None = None


class StringCompiler:
    """Compiles the strings of one pipeline's params.

    Args:
        files: The files that templates include and load.
        read_file: Reads files for the filter `file_base64`; `None` as long as there is no dataset.
        rendering: The version of the rendering.
        shapes: The keys that objects of the dataset have, for each of their locations.
        columns: The columns of the dataset.

    Attributes:
        row_files: The files that the strings have read for a row.
    """

    def __init__(
        self,
        files: PipelineFiles,
        read_file: ReadFile | None = None,
        rendering: Rendering = CURRENT,
        shapes: Collection[frozenset[str]] = (),
        columns: Collection[str] = (),
    ) -> None:
        self._files, self._rendering = files, rendering
        self.row_files = RowFiles(read_file)
        self._shapes, self._columns = shapes, columns

    @cached_property
    def _environment(self) -> LimitedEnvironment:
        # Most pipelines have no betas, and wrapping all filters takes as long as compiling a prompt.
        return self._make_environment()

    @cached_property
    def _finder(self) -> NameFinder:
        return NameFinder(self._environment)

    @property
    def files(self) -> dict[str, str]:
        """The files that its strings have read so far: name to digest."""
        return self._files.digests

    def begin(self, row: Row) -> None:
        """Reset the limits for a new row, and forget the files of the previous one."""
        self._environment.begin(row)
        self.row_files.begin()

    def constant(self, string: CompiledString) -> tuple[Any] | None:
        """Return the value of a string as a tuple if it does not depend on the row, else `None`.

        Raises:
            TemplateProblemError: When the string fails for every row.
        """
        if string.names.columns or string.names.row:
            return None
        self._environment.begin()
        try:
            return (string.evaluate({}),)
        except NoDatasetError:
            return None
        except RowRejectedError as error:
            if string.names.may_be_columns:
                return None
            raise TemplateProblemError(error.message.partition(": ")[2]) from None

    def compile(self, source: str, field: str) -> CompiledString:
        """Compile one string.

        Args:
            source: The string.
            field: Its field, for errors.

        Raises:
            TemplateProblemError: When it cannot be compiled.
        """
        text = self._plain_text(source)
        if text is not None:
            return CompiledString(Names(), False, lambda _: text)
        try:
            inner = self._expression(source)
            names = self._finder.find(source)
            for file in names.loads:
                self._files.data(file)
            if inner is None:
                return self._compile_text(source, names, field)
            column = inner.strip()
            if column.isidentifier() and column in names.columns:
                return CompiledString(names, True, self._column(column), column)
            return self._compile_expression(inner, names, field)
        except (jinja2.TemplateError, PipelineFileError, RecursionError) as error:
            raise TemplateProblemError(describe(error)) from None

    def _plain_text(self, source: str) -> str | None:
        """The text of a string that is only text, or only includes a text file, as many prompts do; else `None`.

        Jinja would render the same text. But compiling these strings would take a tenth of a pipeline's load time.
        """
        if not is_template(source):
            return source
        include = _ONLY_INCLUDES.fullmatch(source)
        if include is None:
            return None
        try:
            text = self._files.get_source(self._environment, include["name"])[0]
        except jinja2.TemplateError:
            return None  # compiling it with Jinja will raise the error
        return None if is_template(text) else _NEWLINE.sub("\n", text).removesuffix("\n")

    def _column(self, column: str) -> Callable[[Row], Any]:
        """A function that returns the value of a column."""
        if self._rendering < Rendering.WRITTEN:
            return lambda row: row[column]

        def value_of(row: Row) -> Any:
            value = row[column]
            return value if type(value) is str else finite(value)

        return value_of

    def _make_environment(self) -> LimitedEnvironment:
        options = {"undefined": jinja2.StrictUndefined, "loader": self._files, "auto_reload": False}
        environment: LimitedEnvironment
        if self._rendering == Rendering.STORED:
            environment = LimitedEnvironment(finalize=printed, **options)
        elif self._rendering == Rendering.OWN:
            environment = KeyEnvironment(self._shapes, self._columns, finalize=printed, **options)
        else:
            environment = TextEnvironment(self._shapes, self._columns, **options)
        if self._rendering > Rendering.STORED:
            environment.add_filter("tojson", to_json)
        for name in _RANDOM_GLOBALS:
            environment.globals.pop(name, None)
        for name in _RANDOM_FILTERS:
            environment.filters.pop(name, None)
        environment.globals["load"] = self._files.data
        is_exact = self._rendering >= Rendering.WRITTEN
        environment.add_filter("fromjson", partial(from_json, is_exact=is_exact))
        for name in ("base64", "file_base64", "media_type"):
            environment.add_filter(name, getattr(self.row_files, name))
        return environment

    def _expression(self, source: str) -> str | None:
        """The expression in a string that is one whole `{{ expression }}`, else `None`."""
        stripped = source.strip()
        if not (stripped.startswith("{{") and stripped.endswith("}}")):
            return None
        body = self._environment.parse(stripped).body
        if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
            return None
        if isinstance(body[0].nodes[0], nodes.TemplateData):
            return None
        inner = stripped[2:-2]
        inner = inner[1:] if inner[:1] in ("-", "+") else inner
        return inner[:-1] if inner[-1:] in ("-", "+") else inner

    def _compile_text(self, source: str, names: Names, field: str) -> CompiledString:
        plain = plain_parts(self._environment.parse(source), names.columns)
        if plain is None:
            render = self._environment.from_string(source).render
        else:  # Jinja hardly ever renders such a string, and cannot find mistakes in it, so it compiles it late

            def render(row: Row) -> str:
                return self._environment.from_string(source).render(row)

        return CompiledString(names, False, _guarded(render, field, self._hidden_by(names)), plain=plain)

    def _hidden_by(self, names: Names) -> str:
        """Return what to add to the text about an undefined name: why `row` has none of these columns, or ""."""
        hidden = sorted(names.in_row.intersection(self._columns))
        if ROW not in self._columns or not hidden:
            return ""
        return (
            f"; the dataset has a column `row`, which hides the row itself, so `row[{hidden[0]!r}]` is not the "
            "column of that name: rename the column `row` in the dataset"
        )

    def _compile_expression(self, inner: str, names: Names, field: str) -> CompiledString:
        expression = self._environment.compile_expression(inner, undefined_to_none=False)
        budget = self._environment.budget
        is_written = self._rendering >= Rendering.WRITTEN

        def evaluate(row: Row) -> Any:
            value = expression(row)
            if isinstance(value, Iterator):
                value = list(value)
            if type(value) is not str:
                budget.read(value, 8)
                if is_written:
                    value = finite(value)
            return value

        hint = self._hidden_by(names)
        guarded = _guarded(evaluate, field, hint)

        def defined(row: Row) -> Any:
            value = guarded(row)
            if isinstance(value, Absent):
                return None
            if isinstance(value, jinja2.Undefined):
                raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{field}: {value._undefined_message}{hint}")
            return value

        return CompiledString(names, True, defined)


def _guarded(function: Callable[[Row], Any], field: str, hint: str) -> Callable[[Row], Any]:
    """A function whose errors all reject the row. The hint is added to those about undefined names."""

    def call(row: Row) -> Any:
        try:
            return function(row)
        except RowRejectedError:
            raise
        except Exception as error:
            text = f"{field}: {describe(error)}{hint if isinstance(error, jinja2.UndefinedError) else ''}"
            raise RowRejectedError(ErrorType.TEMPLATE_ERROR, text) from None

    return call


def describe(error: Exception) -> str:
    """Return the text of a template's error, with the file and line."""
    if isinstance(error, jinja2.TemplateNotFound):
        return not_beside(error.name)
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.message} ({_location(error.name, error.lineno)})"
    text = reason(error) if not isinstance(error, RecursionError) else _TOO_DEEP
    location = None
    trace = error.__traceback__
    while trace is not None:
        if "__jinja_exception__" in trace.tb_frame.f_globals:  # Jinja marks the lines of templates like this
            location = _location(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return f"{text} ({location})" if location else text


def _location(file: str | None, line: int) -> str:
    return f"line {line}" if file is None or file.startswith("<") else f"{file}, line {line}"
