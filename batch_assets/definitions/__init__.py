"""The code location that workspace.yaml loads: every pipeline and asset in defs/.

It and defs/ belong to the repository. Wheel and sdist have neither: a project that installs the package has its
own. This is a package, because setuptools leaves out whole packages and not single modules.
"""

import os
from pathlib import Path

import dagster as dg

from batch_assets.dagster.broken.load import load_from_defs_folder
from batch_assets.dagster.pipelines import with_unique_names


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the code location."""
    folder = load_from_defs_folder(path_within_project=Path(__file__).parents[1], is_whole=True)
    pipelines = with_unique_names(folder)
    # Runs assets downstream of results automatically; Dagster's own default sensor is stopped at first.
    automation = dg.AutomationConditionSensorDefinition(
        "default_automation_condition_sensor",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5 if os.environ.get("BATCH_ASSETS_EMULATOR") else 30,
    )
    # A process for every step would cost seconds and gain nothing: the API does the work.
    return dg.Definitions.merge(pipelines, dg.Definitions(sensors=[automation], executor=dg.in_process_executor))
