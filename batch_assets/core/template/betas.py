"""The beta features that requests use: the same for every row, or determined by each row."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import orjson

from batch_assets.core.errors import ConfigError, ErrorType
from batch_assets.core.template.rendering import CURRENT, Rendering
from batch_assets.core.template.template import Template
from batch_assets.core.template.template_names import is_template
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError

_FIELD = "betas"
# The API's names look like output-300k-2026-03-24. Other characters could break the header.
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Betas:
    """The compiled `betas` of a pipeline. An entry that renders as null or empty is dropped, a list is spliced in.

    Args:
        entries: The entries in the pipeline file.
        folder: The folder of the files that templates name.
        source: The pipeline file, for errors.
        template: The entries compiled for a dataset; `None` as long as there is no dataset.

    Raises:
        ConfigError: When a template cannot be compiled, or an entry is not the name of a beta feature.
    """

    def __init__(self, entries: list[str], folder: Path, source: str, template: Template | None = None) -> None:
        self._entries, self._folder, self._source = entries, folder, source
        self._template = template or Template(entries, folder, source, field=_FIELD)
        # Exactly as written, even with duplicates: the header is part of the digest of requests with an answer.
        self._written = None if any(map(is_template, entries)) else ",".join(entries)
        if (constant := self._template.constant) is not None:
            try:
                _joined(orjson.loads(constant))
            except ValueError as error:
                raise ConfigError(source, _FIELD, str(error)) from None

    @property
    def by_row(self) -> bool:
        """Whether rows may use different beta features."""
        return self._template.constant is None

    @property
    def constant(self) -> str | None:
        """The header of every row; `None` if there is none or rows may differ."""
        if not self._entries or self.by_row:
            return None
        return self._written if self._written is not None else self.of({})

    @property
    def files(self) -> dict[str, str]:
        """The files beside the pipeline that its templates read: see `Template.files`."""
        return self._template.files

    @property
    def reads_row(self) -> bool:
        """See `Template.reads_row`."""
        return self._template.reads_row

    @property
    def reads_all_columns(self) -> bool:
        """See `Template.reads_all_columns`."""
        return self._template.reads_all_columns

    def may_look_up(self, keys: Collection[str]) -> bool:
        """See `Template.may_look_up`."""
        return self._template.may_look_up(keys)

    @property
    def names_zones(self) -> bool:
        """See `Template.names_zones`."""
        return self._template.names_zones

    @property
    def picks_files(self) -> bool:
        """See `Template.picks_files`."""
        return self._template.picks_files

    @property
    def columns(self) -> set[str]:
        """The dataset columns that the templates read."""
        return self._template.columns

    def fitted(
        self, dataset: Iterable[str], rendering: Rendering = CURRENT, shapes: Collection[frozenset[str]] = ()
    ) -> Betas:
        """Return these betas compiled for a dataset.

        Args:
            dataset: The names of the dataset's columns; see `Template.fitted`.
            rendering: See `Template.fitted`.
            shapes: See `Template.fitted`.
        """
        template = self._template.fitted(dataset, rendering=rendering, shapes=shapes)
        return Betas(self._entries, self._folder, self._source, template)

    def where(self, column: str) -> str:
        """Return the first entry that reads the column."""
        return self._template.where(column)

    def of(self, row: Row, present: Collection[str] | None = None) -> str | None:
        """Return the header of a row's request: each name once, in the order of the entries. `None` for no names.

        Args:
            row: See `Template.render`.
            present: See `Template.render`.

        Raises:
            RowRejectedError: When the row gives a value that is not the name of a beta feature.
        """
        try:
            return _joined(orjson.loads(self._template.render(row, present))) or None
        except ValueError as error:
            raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{_FIELD}: {error}") from None


def _joined(entries: list[Any]) -> str:
    """Join the names of beta features.

    Raises:
        ValueError: When an entry is not the name of a beta feature.
    """
    names: dict[str, None] = {}
    for entry in entries:
        if not isinstance(entry, str | None):
            raise ValueError(
                f"{entry!r} is not text: an entry must be the name of a beta feature, or null for none"
            )
        for name in filter(None, map(str.strip, (entry or "").split(","))):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a beta feature: use letters, digits, '-', '.' and '_'"
                )
            names[name] = None
    return ",".join(names)
