"""`batch-assets run` on a pipeline whose dataset is the table of a Dagster asset."""

from __future__ import annotations

import pandas as pd

from .support import Project

ASSET = """
import dagster as dg
import pandas as pd

@dg.asset
def reviews():
    return pd.DataFrame({"id": [1, 2], "text": ["good", "bad"]})
"""
MATERIALIZE = """
import dagster as dg
from batch_assets.definitions import defs

with dg.DagsterInstance.get() as instance:
    assert defs().resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("reviews")]
    ).success
"""


def test_the_table_is_loaded_from_the_instance(project: Project) -> None:
    project.add_pipeline("asked", [], dataset={"asset": "reviews", "key": "id"})
    (project.folder / "batch_assets" / "defs" / "reviews.py").write_text(ASSET)
    alone = project.run("run", "asked")
    assert (alone.returncode, "set DAGSTER_HOME to the instance that holds reviews" in alone.stderr) == (1, True)
    home = project.folder / "home"
    home.mkdir()
    project.env["DAGSTER_HOME"] = str(home)
    early = project.run("run", "asked")
    assert early.returncode == 1
    assert "the table of reviews cannot be loaded" in early.stderr and "Is it materialized?" in early.stderr
    made = project.run_python("-c", MATERIALIZE)
    assert made.returncode == 0, made.stderr
    done = project.run("run", "asked")
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(project.folder / "data" / "emulated" / "asked" / "results")
    assert list(table["text"]) == ["good", "bad"]
    assert set(table["result_type"]) == {"succeeded"}
