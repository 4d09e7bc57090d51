"""The class of the sensor that all pipelines of one root share."""

from __future__ import annotations

from typing import Any

import dagster as dg


class LedgerSensor(dg.SensorDefinition):
    """A sensor that remains one object.

    Dagster copies each component's sensors to note in which file they are defined. It would then find several
    sensors of one name, one for each pipeline.
    """

    @property
    def resource_key(self) -> str | None:
        """The resource key of the root whose ledger the sensor watches; None for the environment's root."""
        return next(iter(self.required_resource_keys), None)

    def with_attributes(self, *, jobs: Any = None, metadata: Any = None) -> dg.SensorDefinition:
        return self if not jobs else super().with_attributes(jobs=jobs, metadata=metadata)
