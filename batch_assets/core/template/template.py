"""One row of the dataset -> the exact bytes of one request's params. Compiled once, constant parts once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.outline import Spliced, Unknown
from batch_assets.core.template.parts import Check, Entry, Part, as_it_is, items, merge, plain, splicing_list
from batch_assets.core.template.pipeline_files import PipelineFiles
from batch_assets.core.template.template_names import ROW, SELF, Names
from batch_assets.core.template.template_strings import (
    CompiledString,
    ReadFile,
    Row,
    StringCompiler,
    TemplateProblemError,
)
from batch_assets.core.template.values import DATA_KEYS, TEXT_KEYS, RowRejectedError, as_text, checked, dump

# Without entries it asks for nothing; other lists are prompts, or what a prompt needs.
_MAY_BE_EMPTY = ".stop_sequences"


class Template:
    """The compiled params of a pipeline, or another field of it that is rendered for each row.

    Every string is a Jinja template over the row; a string that is one whole expression keeps the
    value's own type. In lists, a value that is a list is spliced in and null drops the entry.

    Columns are read by name: `{{ text }}`. A column whose name Jinja does not take (`Review Text`, `none`)
    is read from the whole row: `{{ row['Review Text'] }}`. A column comes before a function of Jinja's, before
    `load`, and before `row` itself, if it has that name. `{{ load('examples.yaml') }}` is the data in a JSON,
    JSON Lines or YAML file of the pipeline's folder.

    Args:
        params: the params; of another field its list, which may come out empty.
        folder: where files that templates name are looked up.
        source: the pipeline file, for errors.
        field: the field's name, for errors.
        dataset: names of the dataset's columns in order; None while they are not known.
        checks: of what rows give, by field: see `row_checks`.
        read_file: gives the filter `file_base64` its files, by their paths within the dataset's folder.
        files: those of the folder, as far as they are read already.

    Attributes:
        columns: the dataset columns that the templates read, as far as that is known without `dataset`.

    Raises:
        ConfigError: a template that cannot be compiled, or reads a column that Jinja cannot read by its name; it
            names file and field.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | list[str],
        folder: Path,
        source: str,
        field: str = "params",
        *,
        dataset: Iterable[str] | None = None,
        checks: Mapping[str, Check] | None = None,
        read_file: ReadFile | None = None,
        files: PipelineFiles | None = None,
    ) -> None:
        self._params, self._folder, self._source, self._field = params, folder, source, field
        self._files = files if files is not None else PipelineFiles(folder)
        self._compiler = StringCompiler(self._files, read_file)
        self._checks = checks or {}
        self._known = tuple(dict.fromkeys(dataset)) if dataset is not None else None
        self._strings: dict[str, CompiledString] = {}
        self._names = Names()
        self._where: dict[str, str] = {}
        self._parts = merge(self._compile(params, field, text=False, data=False))
        if self._names.itself and SELF in (self._known or ()):
            problem = "in a template `self` is the template; the column of that name is `row['self']`"
            raise ConfigError(source, self._where[SELF], problem)
        self._reads = self._names.reads(self._known)
        self.columns = self._reads.columns

    def fitted(
        self,
        dataset: Iterable[str],
        checks: Mapping[str, Check] | None = None,
        read_file: ReadFile | None = None,
    ) -> Template:
        """The same template for a dataset, compiled again of files that were read already.

        Args:
            dataset, checks, read_file: see the class.

        Raises:
            ConfigError: it reads a column that Jinja cannot read by its name.
        """
        return Template(
            self._params,
            self._folder,
            self._source,
            self._field,
            dataset=dataset,
            checks=checks,
            read_file=read_file,
            files=self._files,
        )

    def render(self, row: Row) -> bytes:
        """The params of one row as JSON bytes, in the author's key order.

        Raises:
            RowRejectedError: the row cannot become a request.
        """
        self._compiler.begin()
        if self._reads.row:
            order = self._reads.order
            row = {**row, ROW: dict(row) if order is None else {name: row[name] for name in order}}
        return b"".join([part if type(part) is bytes else part(row) for part in self._parts])  # type: ignore[operator]

    def outline(self) -> dict[str, Any]:
        """The params as far as they are known without a row: what is not stands there as `Unknown`."""
        outline: dict[str, Any] = self._outline(self._params, self._field)
        return outline

    @property
    def constant(self) -> bytes | None:
        """What every row gives; None where that depends on the row."""
        parts = [part for part in self._parts if isinstance(part, bytes)]
        return b"".join(parts) if len(parts) == len(self._parts) else None

    @property
    def files(self) -> dict[str, str]:
        """The files beside the pipeline that it includes or loads: name to digest of what is in them."""
        return self._compiler.files

    def where(self, column: str) -> str:
        """The first field whose template reads the column; with file and line if a file that it includes does."""
        return self._where[column]

    def place(self, field: str) -> str:
        """A field as errors name it: with the file, if its value is loaded from one."""
        for start, string in self._strings.items():
            if string.names.loads and (field == start or field.startswith((f"{start}[", f"{start}."))):
                return f"{field} ({', '.join(sorted(string.names.loads))})"
        return field

    def _compile(self, value: Any, field: str, text: bool, data: bool) -> list[Part]:
        """The parts of a value.

        Args:
            text: the API wants text here.
            data: this is part of somebody's JSON, in which the API has no wishes.
        """
        if isinstance(value, str):
            return [self._compile_string(value, field, text, data)]
        if isinstance(value, Mapping):
            return self._compile_object(value, field, data)
        if isinstance(value, list | tuple):
            return self._compile_list(value, field, data)
        if value is None and text:
            raise ConfigError(self._source, field, "null where the API wants text")
        try:
            return [orjson.dumps(value)]
        except TypeError:
            problem = f"a {type(value).__name__} has no JSON form: put it in quotes"
            raise ConfigError(self._source, field, problem) from None

    def _compile_object(self, value: Mapping[str, Any], field: str, data: bool) -> list[Part]:
        parts: list[Part] = [b"{"]
        for position, (key, sub) in enumerate(value.items()):
            parts.append((b"," if position else b"") + orjson.dumps(str(key)) + b":")
            text = key in TEXT_KEYS and not data
            parts += self._compile(sub, f"{field}.{key}", text, data or key in DATA_KEYS)
        return [*parts, b"}"]

    def _compile_list(self, value: Collection[Any], field: str, data: bool) -> list[Part]:
        """A list: an expression's list is spliced in, null drops the entry. The parts of a list that is as long
        for every row become parts of what surrounds it.
        """
        entries: list[Entry] = []
        check = as_it_is if data else checked
        for position, entry in enumerate(value):
            place = f"{field}[{position}]"
            string = self._string(entry, place) if isinstance(entry, str) else None
            if string is None or not string.whole:
                entries.append(self._compile(entry, place, text=False, data=data))
                continue
            constant = self._constant(string, place)
            if constant is None:
                entries.append((string.evaluate, place, self._checked(check, place)))
                continue
            try:
                entries += [[item] for item in items(constant[0], place, check)]
            except RowRejectedError as error:
                raise self._refused(error) from None
        may_be_empty = field == self._field or (field.endswith(_MAY_BE_EMPTY) and not data)
        if value and not entries and not may_be_empty:
            raise ConfigError(self._source, field, "nothing is left of the list")
        parts: list[Part] = [b"["]
        for known in entries:
            if isinstance(known, tuple):
                ready = [entry if isinstance(entry, tuple) else merge(entry) for entry in entries]
                return [splicing_list(ready, field, may_be_empty)]
            parts += [b",", *known] if len(parts) > 1 else known
        return [*parts, b"]"]

    def _compile_string(self, source: str, field: str, text: bool, data: bool) -> Part:
        string = self._string(source, field)
        check = as_text if text else as_it_is if data or not string.whole else checked
        constant = self._constant(string, field)
        if constant is not None:
            try:
                return dump(check(constant[0], field), field)
            except RowRejectedError as error:
                raise self._refused(error) from None
        if string.plain is not None:
            return plain(string.plain, field, check)
        evaluate, whole = string.evaluate, self._checked(check, field)
        return lambda row: dump(whole(evaluate(row), field), field)

    def _checked(self, check: Check, field: str) -> Check:
        """The check of a field, and then that of what a row gives there."""
        more = self._checks.get(field)
        if more is None:
            return check
        return lambda value, place: more(check(value, place), place)

    def _refused(self, error: RowRejectedError) -> ConfigError:
        """What is wrong with every row is wrong with the pipeline."""
        field, _, problem = error.message.partition(": ")
        return ConfigError(self._source, self.place(field), problem)

    def _string(self, source: str, field: str) -> CompiledString:
        string = self._strings.get(field)
        if string is None:
            try:
                string = self._strings[field] = self._compiler.compile(source, field)
            except TemplateProblemError as error:
                raise ConfigError(self._source, field, str(error)) from None
            self._names.add(string.names)
            for name in string.names.all:
                place = string.names.places.get(name)
                self._where.setdefault(name, f"{field} ({place})" if place else field)
        return string

    def _constant(self, string: CompiledString, field: str) -> tuple[Any] | None:
        """The string's value, if every row gives the same."""
        if string.names.functions.intersection(self._known or ()):
            return None
        try:
            constant = self._compiler.constant(string)
            if constant is not None and string.names.may_be_columns:
                dump(constant[0], field)
            return constant
        except RowRejectedError:
            return None
        except TemplateProblemError as error:
            raise ConfigError(self._source, field, str(error)) from None

    def _outline(self, value: Any, field: str) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self._outline(sub, f"{field}.{key}") for key, sub in value.items()}
        if isinstance(value, list | tuple):
            outlined = []
            for position, entry in enumerate(value):
                known = self._outline(entry, f"{field}[{position}]")
                if isinstance(entry, str) and (known is None or isinstance(known, list | tuple)):
                    known = Spliced(known or [])
                outlined.append(known)
            return outlined
        if not isinstance(value, str):
            return value
        string = self._string(value, field)
        constant = self._constant(string, field)
        if constant is None:
            return Unknown.VALUE if string.whole else Unknown.TEXT
        return constant[0]
