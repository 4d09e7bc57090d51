"""Asset checks of components that stay what they are."""

from typing import Any, Self

import dagster as dg


class LastingCheck(dg.AssetChecksDefinition):
    """Stays a check: Dagster copies those of a component as assets, and warns of itself when it makes checks of
    them again.
    """

    @classmethod
    def like(cls, check: dg.AssetsDefinition) -> Self:
        attributes = check.get_attributes_dict()
        del attributes["execution_type"]  # a beta parameter; its default is what a check has
        return cls(**attributes)

    def with_attributes(self, **changes: Any) -> Self:
        return self.like(super().with_attributes(**changes))
