"""What workspace.yaml loads: every pipeline and asset in defs/."""

import os
from pathlib import Path

import dagster as dg

from batch_assets.dagster.pipelines import with_unique_names


@dg.definitions
def defs() -> dg.Definitions:
    """The code location."""
    found = with_unique_names(dg.load_from_defs_folder(path_within_project=Path(__file__).parent))
    # Runs what hangs on results without a click; Dagster's own default sensor starts stopped.
    automation = dg.AutomationConditionSensorDefinition(
        "default_automation_condition_sensor",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5 if os.environ.get("BATCH_ASSETS_EMULATOR") else 30,
    )
    # A process for every step would cost seconds each and gain nothing: the work is done elsewhere.
    return dg.Definitions.merge(found, dg.Definitions(sensors=[automation], executor=dg.in_process_executor))
