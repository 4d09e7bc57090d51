"""The beta features that requests ask for: the same for every row, or as each row says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.template import Template
from batch_assets.core.template.template_names import is_template
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError

_FIELD = "betas"
# As the API's documentation has them, such as output-300k-2026-03-24; what else there is may break a header.
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Betas:
    """The compiled `betas` of a pipeline. An entry that gives null or nothing is dropped, a list is spliced in.

    Args:
        entries: as the pipeline file has them.
        folder: where files that templates name are looked up.
        source: the pipeline file, for errors.
        template: the entries compiled for a dataset; None while there is none.

    Raises:
        ConfigError: a template that cannot be compiled, or what is no name of a beta feature.
    """

    def __init__(self, entries: list[str], folder: Path, source: str, template: Template | None = None) -> None:
        self._entries, self._folder, self._source = entries, folder, source
        self._template = template or Template(entries, folder, source, field=_FIELD)
        # As they were written, doubles and all: it is part of the identity of requests that are answered already.
        self._written = None if any(map(is_template, entries)) else ",".join(entries)
        if (constant := self._template.constant) is not None:
            try:
                _joined(orjson.loads(constant))
            except ValueError as error:
                raise ConfigError(source, _FIELD, str(error)) from None

    @property
    def by_row(self) -> bool:
        """Whether rows may ask for different ones."""
        return self._template.constant is None

    @property
    def constant(self) -> str | None:
        """The header that every row has; None without one, and where rows may differ."""
        if not self._entries or self.by_row:
            return None
        return self._written if self._written is not None else self.of({})

    @property
    def files(self) -> dict[str, str]:
        """The files beside the pipeline that its templates read: see `Template.files`."""
        return self._template.files

    @property
    def columns(self) -> set[str]:
        """The dataset columns that the templates read."""
        return self._template.columns

    def fitted(self, dataset: Iterable[str]) -> Betas:
        """The same for a dataset with these columns: see `Template.fitted`."""
        return Betas(self._entries, self._folder, self._source, self._template.fitted(dataset))

    def where(self, column: str) -> str:
        """The first entry that reads the column."""
        return self._template.where(column)

    def of(self, row: Row) -> str | None:
        """The header of a row's request, each name once, in the order in which they are written; None without.

        Raises:
            RowRejectedError: the row gives none.
        """
        try:
            return _joined(orjson.loads(self._template.render(row))) or None
        except ValueError as error:
            raise RowRejectedError("template_error", f"{_FIELD}: {error}") from None


def _joined(entries: list[Any]) -> str:
    """Errors: ValueError: an entry that is no name."""
    names: dict[str, None] = {}
    for entry in entries:
        if not isinstance(entry, str | None):
            raise ValueError(f"{entry!r} is no text: an entry gives the name of a beta feature, or null for none")
        for name in filter(None, map(str.strip, (entry or "").split(","))):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a beta feature: letters, digits, '-', '.' and '_'")
            names[name] = None
    return ",".join(names)
