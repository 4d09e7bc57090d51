"""Render the params of one request from one row, as exact bytes. Constant parts are rendered only once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.flat_template import FlatTemplate
from batch_assets.core.template.key_access import WholeRow
from batch_assets.core.template.outline import Spliced, Unknown
from batch_assets.core.template.parts import (
    Entry,
    Part,
    PlainText,
    WholeColumn,
    as_it_is,
    items,
    merge,
    splicing_list,
)
from batch_assets.core.template.pipeline_files import PipelineFiles
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.row_files import EncodedFile, ReadFile
from batch_assets.core.template.row_values import RowCheck
from batch_assets.core.template.template_names import ROW, SELF, Names
from batch_assets.core.template.template_strings import (
    CompiledString,
    Row,
    StringCompiler,
    TemplateProblemError,
)
from batch_assets.core.template.values import (
    DATA_KEYS,
    TEXT_KEYS,
    Check,
    RowRejectedError,
    as_text,
    checked,
    dump,
    reason,
    sent,
)
from batch_assets.core.template.written import text_of

_SOURCE = b'"source"'
# This list may end up empty, which means no stop sequences. Other lists are prompts, or needed by a prompt.
_MAY_BE_EMPTY = ".stop_sequences"


class Template:
    """The compiled params of a pipeline, or another field that is rendered for each row.

    Every string is a Jinja template over the row. A string that is one whole expression keeps the type of its
    value. In a list, an expression whose value is a list is spliced in, and one whose value is null is dropped.

    Templates read columns by name: `{{ text }}`. A column whose name is not valid in Jinja (`Review Text`, `none`)
    is read through the row: `{{ row['Review Text'] }}`. A column hides a Jinja function, `load` or `row` itself if
    it has the same name. `{{ load('examples.yaml') }}` is the data in a JSON, JSON Lines or YAML file of the
    pipeline's folder.

    Args:
        params: The params, or the list of another field, which may end up empty.
        folder: The folder of the files that templates name.
        source: The pipeline file, for errors.
        field: The name of the field, for errors.
        dataset: The names of the dataset's columns in order; `None` as long as they are unknown.
        checks: The checks of values from rows, by field; see `row_checks`.
        read_file: Reads a file for the filter `file_base64`, by its path within the dataset's folder.
        files: The files of the folder, if some were read already.
        rendering: The version of the rendering.
        shapes: The keys that objects of the dataset have, for each of their locations.

    Attributes:
        columns: The dataset columns that the templates read, as far as they are known without `dataset`.
        may_hold_media: Whether the params of the row that was rendered last may hold images or PDFs.

    Raises:
        ConfigError: When a template cannot be compiled, or reads a column by a name that Jinja reserves. Names the
            file and the field.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | list[str],
        folder: Path,
        source: str,
        field: str = "params",
        *,
        dataset: Iterable[str] | None = None,
        checks: Mapping[str, RowCheck] | None = None,
        read_file: ReadFile | None = None,
        files: PipelineFiles | None = None,
        rendering: Rendering = CURRENT,
        shapes: Collection[frozenset[str]] = (),
    ) -> None:
        self._params, self._folder, self._source, self._field = params, folder, source, field
        self._files = files if files is not None else PipelineFiles(folder)
        self._rendering = rendering
        self._checks = checks or {}
        self._known = tuple(dict.fromkeys(dataset)) if dataset is not None else None
        self._compiler = StringCompiler(self._files, read_file, rendering, shapes, self._known or ())
        self._strings: dict[str, CompiledString] = {}
        self._names = Names()
        self._where: dict[str, str] = {}
        self._parts = merge(self._compile(params, field, text=False, data=False))
        self._compiler.row_files.keep()
        self._has_source = any(isinstance(part, bytes) and _SOURCE in part for part in self._parts)
        self.may_hold_media = self._has_source
        if self._names.itself and SELF in (self._known or ()):
            problem = "in a template `self` is the template itself; read the column of that name as `row['self']`"
            raise ConfigError(source, self._where[SELF], problem)
        self._reads = self._names.reads(self._known)
        self.columns = self._reads.columns
        # What `row` has that is no column of the dataset: row_number.
        self._beside = [name for name in self._reads.order or () if name not in (self._known or ())]

    def fitted(
        self,
        dataset: Iterable[str],
        checks: Mapping[str, RowCheck] | None = None,
        read_file: ReadFile | None = None,
        rendering: Rendering = CURRENT,
        shapes: Collection[frozenset[str]] = (),
    ) -> Template:
        """Return this template compiled for a dataset, from the file contents that were read before.

        Args:
            dataset: See the class.
            checks: See the class.
            read_file: See the class.
            rendering: See the class.
            shapes: See the class.

        Raises:
            ConfigError: When the template reads a column by a name that Jinja reserves.
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
            rendering=rendering,
            shapes=shapes,
        )

    def render(self, row: Row, present: Collection[str] | None = None) -> bytes:
        """Render the params of one row as JSON, with the keys in the order of the pipeline file.

        Args:
            row: The values of the columns.
            present: The columns that the row has, in its own order; `None` if it has all of them.

        Raises:
            RowRejectedError: When the row cannot become a request.
        """
        self._compiler.begin(row)
        self.may_hold_media = self._has_source
        if self._reads.row:
            row = {**row, ROW: self._whole(row, present)}
        return b"".join([part if type(part) is bytes else part(row) for part in self._parts])  # type: ignore[operator]

    def _whole(self, row: Row, present: Collection[str] | None) -> dict[str, Any]:
        """The value of `row` in templates."""
        order = self._reads.order
        if order is None:
            return dict(row)
        if present is None or self._rendering == Rendering.STORED:
            return {name: row[name] for name in order}
        return WholeRow((name, row[name]) for name in [*present, *self._beside] if name in row)

    def outline(self) -> dict[str, Any]:
        """Return the params as far as they are known without a row. Unknown values are `Unknown`."""
        outline: dict[str, Any] = self._outline(self._params, self._field)
        return outline

    @property
    def reads_row(self) -> bool:
        """Whether a string reads the row as a whole, with its columns in its own order."""
        return self._reads.row

    @property
    def reads_all_columns(self) -> bool:
        """Whether a string reads the row in a way that may need any column, in the order of the dataset."""
        return self._reads.order is not None

    def may_look_up(self, keys: Collection[str]) -> bool:
        """Whether a string may look up one of some keys in an object."""
        return self._names.any_key or not self._names.keys.isdisjoint(keys)

    @property
    def names_zones(self) -> bool:
        """Whether a string may convert a time to a zone by its name; see `Names.names_zones`."""
        return self._names.names_zones

    @property
    def picks_files(self) -> bool:
        """Whether a string reads files that are not known before rows are rendered; see `Names.picks_files`."""
        return self._names.picks_files

    @property
    def flat(self) -> FlatTemplate | None:
        """The template for many rows at once; `None` if rows have to be rendered one by one."""
        return FlatTemplate.of(self._parts) if not (self._has_source or self._reads.row) else None

    @property
    def encoded(self) -> list[EncodedFile]:
        """The files that the row rendered last has as Base64."""
        return self._compiler.row_files.encoded

    @property
    def constant(self) -> bytes | None:
        """The rendered bytes if they are the same for every row, else `None`."""
        parts = [part for part in self._parts if isinstance(part, bytes)]
        return b"".join(parts) if len(parts) == len(self._parts) else None

    @property
    def files(self) -> dict[str, str]:
        """The files beside the pipeline that it includes or loads: name to digest of what is in them."""
        return self._compiler.files

    def where(self, column: str) -> str:
        """Return the first field whose template reads the column, with file and line if an included file does."""
        return self._where[column]

    def field_with_file(self, field: str) -> str:
        """Return a field as errors name it: followed by the file if its value is loaded from one."""
        for start, string in self._strings.items():
            if string.names.loads and (field == start or field.startswith((f"{start}[", f"{start}."))):
                return f"{field} ({', '.join(sorted(string.names.loads))})"
        return field

    def _compile(self, value: Any, field: str, text: bool, data: bool) -> list[Part]:
        """Compile a value to its parts.

        Args:
            value: The value in the pipeline file.
            field: Its field.
            text: Whether the API wants text here.
            data: Whether the value is within JSON of the user's own, where the API accepts anything.
        """
        if isinstance(value, str):
            return [self._compile_string(value, field, text, data)]
        if isinstance(value, Mapping):
            return self._compile_object(value, field, data)
        if isinstance(value, list | tuple):
            return self._compile_list(value, field, data)
        if value is None and text:
            raise ConfigError(self._source, field, "null where the API wants text")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(self._source, field, f"JSON has no {value}: write a finite number")
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                return [str(int(value)).encode()]  # orjson writes at most 64 bits
            except ValueError as error:
                raise ConfigError(self._source, field, reason(error)) from None
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
        """Compile a list. An expression's list is spliced in, and null drops the entry.

        If the list has the same length for every row, its parts become parts of the surrounding value.
        """
        entries: list[Entry] = []
        check = as_it_is if data else checked
        for position, entry in enumerate(value):
            entry_field = f"{field}[{position}]"
            string = self._string(entry, entry_field) if isinstance(entry, str) else None
            if string is None or not string.whole:
                entries.append(self._compile(entry, entry_field, text=False, data=data))
                continue
            constant = self._constant(string, entry_field)
            if constant is None:
                entries.append((self._watched(string.evaluate), entry_field, self._checked(check, entry_field)))
                continue
            try:
                entries += [[item] for item in items(constant[0], entry_field, check)]
            except RowRejectedError as error:
                raise self._refused(error) from None
        may_be_empty = field == self._field or (field.endswith(_MAY_BE_EMPTY) and not data)
        if value and not entries and not may_be_empty:
            raise ConfigError(self._source, field, "no entry of the list is left")
        parts: list[Part] = [b"["]
        for compiled in entries:
            if isinstance(compiled, tuple):
                merged = [entry if isinstance(entry, tuple) else merge(entry) for entry in entries]
                return [splicing_list(merged, field, may_be_empty)]
            parts += [b",", *compiled] if len(parts) > 1 else compiled
        return [*parts, b"]"]

    def _compile_string(self, source: str, field: str, text: bool, data: bool) -> Part:
        string = self._string(source, field)
        check = as_text if text else as_it_is if data or not string.whole else checked
        constant = self._constant(string, field)
        if constant is not None:
            try:
                return sent(constant[0], field, check)
            except RowRejectedError as error:
                raise self._refused(error) from None
        if string.plain is not None:
            return PlainText(string.plain, field, check, text_of if self._rendering >= Rendering.WRITTEN else str)
        evaluate = self._watched(string.evaluate) if string.whole else string.evaluate
        full_check = self._checked(check, field)

        def render(row: Row) -> bytes:
            return sent(evaluate(row), field, full_check)

        row_check = self._checks.get(field)
        if string.column is not None and (row_check is None or row_check.accepts_text):
            return WholeColumn(string.column, render, may_not_be_blank=check is as_text)
        return render

    def _watched(self, evaluate: Callable[[Row], Any]) -> Callable[[Row], Any]:
        """An expression that notes if its value may hold images or PDFs: text cannot, a list or object can."""

        def watched(row: Row) -> Any:
            value = evaluate(row)
            if type(value) is not str:
                self.may_hold_media = True
            return value

        return watched

    def _checked(self, check: Check, field: str) -> Check:
        """A check, followed by the check of values from rows for the field if there is one."""
        row_check = self._checks.get(field)
        if row_check is None:
            return check
        return lambda value, value_field: row_check(check(value, value_field), value_field)

    def _refused(self, error: RowRejectedError) -> ConfigError:
        """An error of the pipeline, for a problem that every row has."""
        field, _, problem = error.message.partition(": ")
        return ConfigError(self._source, self.field_with_file(field), problem)

    def _string(self, source: str, field: str) -> CompiledString:
        string = self._strings.get(field)
        if string is None:
            try:
                string = self._strings[field] = self._compiler.compile(source, field)
            except TemplateProblemError as error:
                raise ConfigError(self._source, field, str(error)) from None
            self._names.add(string.names)
            for name in string.names.all:
                location = string.names.locations.get(name)
                self._where.setdefault(name, f"{field} ({location})" if location else field)
        return string

    def _constant(self, string: CompiledString, field: str) -> tuple[Any] | None:
        """The string's value as a tuple if it is the same for every row, else `None`."""
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
                outline = self._outline(entry, f"{field}[{position}]")
                if isinstance(entry, str) and (outline is None or isinstance(outline, list | tuple)):
                    outline = Spliced(outline or [])
                outlined.append(outline)
            return outlined
        if not isinstance(value, str):
            return value
        string = self._string(value, field)
        constant = self._constant(string, field)
        if constant is None:
            return Unknown.VALUE if string.whole else Unknown.TEXT
        return constant[0]
