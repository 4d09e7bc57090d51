"""The sensor definition that all pipelines of one root share."""

from __future__ import annotations

from typing import Any

import dagster as dg


class LedgerSensor(dg.SensorDefinition):
    """Stays one object: Dagster copies the sensors of a component to note in each where it came from, and
    would then see as many sensors of one name as there are pipelines.
    """

    @property
    def resource_key(self) -> str | None:
        """The key of the root whose ledger it watches; None for the environment's."""
        return next(iter(self.required_resource_keys), None)

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> dg.SensorDefinition:
        return self if not jobs else super().with_attributes(jobs=jobs, metadata=metadata)
