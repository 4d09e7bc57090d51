"""The class of asset checks that components can define."""

from typing import Any, Self

import dagster as dg


class LastingCheck(dg.AssetChecksDefinition):
    """Asset checks that remain asset checks when Dagster copies them.

    Dagster copies a component's checks as plain assets definitions, and warns about its own code when it converts
    them back.
    """

    @classmethod
    def like(cls, check: dg.AssetsDefinition) -> Self:
        """Return a copy of a check that has this class."""
        attributes = check.get_attributes_dict()
        del attributes["execution_type"]  # a beta parameter; its default is what a check has
        return cls(**attributes)

    def with_attributes(self, **changes: Any) -> Self:
        return self.like(super().with_attributes(**changes))
