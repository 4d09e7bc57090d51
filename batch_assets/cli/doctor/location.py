"""What the project's definitions need of a Dagster instance: pools, and the sensors of each root."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.cli.definitions_error import loading
from batch_assets.cli.project import load_definitions
from batch_assets.dagster.broken_file import broken_in
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.dagster.pools import pools_of
from batch_assets.dagster.sensors.ledger_sensor import LedgerSensor


@dataclass(frozen=True)
class Location:
    """The project's definitions.

    Attributes:
        pipelines: The number of pipelines.
        broken: The pipeline files that are broken, each with what is wrong with it.
        pools: The names of all pools of their steps.
        sensors: The names of the sensors that watch the root in question.
    """

    pipelines: int
    broken: list[str]
    pools: list[str]
    sensors: list[str]


def load_location(resource: str | None) -> Location:
    """Load the definitions.

    Args:
        resource: Key of the resource whose sensors are meant; None for those of the environment's root.

    Raises:
        DefinitionsError: When they do not load.
    """
    with loading():
        definitions = load_definitions()
        specs = list(definitions.resolve_all_asset_specs())
        pipelines, broken = pipelines_in(specs).values(), list(map(str, broken_in(specs).values()))
        sensors = {
            sensor.name
            for sensor in definitions.sensors or ()
            if isinstance(sensor, LedgerSensor) and sensor.resource_key == resource
        }
    return Location(len(pipelines), broken, pools_of(assets.pipeline for assets in pipelines), sorted(sensors))
