"""What is rendered for each row of a dataset: the params of its request, and the betas that it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.template.betas import Betas
from batch_assets.core.template.template import Template


@dataclass(frozen=True)
class RowTemplates:
    """The templates of a pipeline."""

    params: Template
    betas: Betas

    @property
    def reads(self) -> set[str]:
        """The dataset columns that they read."""
        return self.params.columns | self.betas.columns

    def where(self, column: str) -> str:
        """The first field that reads the column."""
        return (self.params if column in self.params.columns else self.betas).where(column)
