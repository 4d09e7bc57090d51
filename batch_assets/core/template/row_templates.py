"""The templates that are rendered for each row: the params of its request, and its betas."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from batch_assets.core.template.betas import Betas
from batch_assets.core.template.template import Template


@dataclass(frozen=True)
class RowTemplates:
    """The templates of a pipeline.

    Attributes:
        params: The template of the params.
        betas: The templates of the betas.
    """

    params: Template
    betas: Betas

    @property
    def reads(self) -> set[str]:
        """The dataset columns that the templates read."""
        return self.params.columns | self.betas.columns

    @property
    def reads_row(self) -> bool:
        """Whether a template reads the row as a whole, with its columns in its own order."""
        return self.params.reads_row or self.betas.reads_row

    @property
    def reads_all_columns(self) -> bool:
        """Whether a template reads the row in a way that may need any column; see `Template.reads_all_columns`."""
        return self.params.reads_all_columns or self.betas.reads_all_columns

    def may_look_up(self, keys: Collection[str]) -> bool:
        """Whether a template may look up one of some keys in an object."""
        return self.params.may_look_up(keys) or self.betas.may_look_up(keys)

    @property
    def names_zones(self) -> bool:
        """Whether a template may convert a time to a zone by its name; see `Names.names_zones`."""
        return self.params.names_zones or self.betas.names_zones

    @property
    def picks_files(self) -> bool:
        """Whether a template reads files that are not known before rows are rendered; see `Names.picks_files`."""
        return self.params.picks_files or self.betas.picks_files

    @property
    def files(self) -> dict[str, str]:
        """The files beside the pipeline that the templates have read so far: name to digest."""
        return self.params.files | self.betas.files

    def where(self, column: str) -> str:
        """Return the first field that reads the column."""
        return (self.params if column in self.params.columns else self.betas).where(column)
