"""`spent_usd` over all events of a pipeline is what its answers cost, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_assets import build_message_batch_jobs
from batch_assets.core.open_root import open_root
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.dagster import keys
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
SENT = ["greetings/requests", "greetings/batches"]


def events(instance: dg.DagsterInstance, asset: str = "results") -> list[dict[str, Any]]:
    """The metadata of all events of an asset, by partition or not, oldest first."""
    key = dg.AssetKey(["greetings", asset])
    records = [
        *instance.fetch_materializations(key, limit=100).records,
        *instance.fetch_observations(key, limit=100).records,
    ]
    entries = [record.event_log_entry for record in sorted(records, key=lambda record: record.storage_id)]
    logged = [entry.asset_materialization or entry.asset_observation for entry in entries]
    return [{name: value.value for name, value in event.metadata.items()} for event in logged if event is not None]


def spent(instance: dg.DagsterInstance) -> float:
    return sum(event[keys.SPENT_USD] for event in events(instance))


def paid(root: Path) -> float:
    """What all stored answers cost, from the response files."""
    tables = [pq.read_table(path) for path in root.glob("*/responses/*.parquet")]
    return float(sum(table["cost_usd"].to_pandas().sum() for table in tables))


def test_the_events_add_up_to_what_was_paid(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets()
    assert dg.materialize(assets, instance=instance).success
    once = paid(tmp_path / "root")
    assert spent(instance) == pytest.approx(once, rel=1e-12)
    # Materialized again, and with an edited prompt: the answers to the old one were paid, too.
    assert dg.materialize(assets, selection=["greetings/results"], instance=instance).success
    assert events(instance)[-1][keys.SPENT_USD] == 0.0
    assert spent(instance) == pytest.approx(once, rel=1e-12)
    edited = {"model": "claude-haiku-5-5", "max_tokens": 50}
    edited |= {"messages": [{"role": "user", "content": "{{ text }}!"}]}  # type: ignore[dict-item]
    assert dg.materialize(make_assets(params=edited), instance=instance).success
    # A refresh, whose table has only the newest answers.
    jobs = {job.name: job for job in build_message_batch_jobs(assets)}
    refreshed = dg.Definitions(assets=assets, jobs=[*jobs.values()]).resolve_job_def("greetings_refresh")
    config = {"ops": {"greetings__requests": {"config": {"refresh": True, "confirm": True}}}}
    assert refreshed.execute_in_process(instance=instance, run_config=config).success
    assert dg.materialize(assets, selection=["greetings/batches", "greetings/results"], instance=instance).success
    total = paid(tmp_path / "root")
    assert total > 2.5 * once
    assert spent(instance) == pytest.approx(total, rel=1e-12)
    table = pd.read_parquet(tmp_path / "root" / "greetings" / "results")
    assert spent(instance) > 2 * table["cost_usd"].sum()


def test_observations_report_what_arrives_before_the_table_is_complete(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    assets = make_assets(batching={"max_requests": 2})
    assert dg.materialize(assets, instance=instance).success
    assert spent(instance) == 0.0
    first, second = (batch["id"] for batch in emulator.log())
    for batch_id in (first, second):
        emulator.end_batches(batch_id)
        assert dg.materialize(assets, selection=["greetings/results"], instance=instance).success
        assert spent(instance) == pytest.approx(paid(tmp_path / "root"), rel=1e-12)
    amounts = [event[keys.SPENT_USD] for event in events(instance)]
    assert [amount > 0 for amount in amounts] == [False, True, True]


_RUN = """
import os, sys
import dagster as dg
from batch_assets import build_message_batch_assets
from batch_assets.dagster.spend_log import SpendLog

killed = getattr(SpendLog, sys.argv[1])

def dies(*args, **kwargs):
    value = killed(*args, **kwargs) if sys.argv[1] == "metadata" else None
    os._exit(9)

setattr(SpendLog, sys.argv[1], dies)
assets = build_message_batch_assets(
    name="greetings", dataset={"path": "greetings.csv", "key": "id"}, folder=".", project=".",
    params={"model": "claude-haiku-5-5", "max_tokens": 50,
            "messages": [{"role": "user", "content": "{{ text }}"}]},
)
with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as instance:
    dg.materialize(assets, instance=instance)
"""


@pytest.mark.parametrize(("killed_in", "is_logged"), [("metadata", False), ("logged", True)])
def test_a_killed_run_leaves_no_amount_in_two_events(
    make_assets: MakeAssets, emulator: Emulator, tmp_path: Path, killed_in: str, is_logged: bool
) -> None:
    """It is killed when the ledger knows the event and Dagster's log does not, or when both have it."""
    emulator.settings(latency=0.0)
    assets = make_assets()
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    killed = subprocess.run(
        [sys.executable, "-c", _RUN, killed_in],
        cwd=tmp_path,
        env=os.environ | {"DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    with dg.DagsterInstance.from_config(str(home)) as instance:
        total = paid(tmp_path / "root")
        assert total > 0
        assert spent(instance) == (pytest.approx(total, rel=1e-12) if is_logged else 0.0)
        (run,) = instance.get_runs()
        assert dg.materialize(assets, selection=["greetings/results"], instance=instance).success
        assert keys.SPEND_NOT_LOGGED_USD not in events(instance)[-1], "the killed run may still log it"
        instance.report_run_failed(run)
        for _ in range(2):
            assert dg.materialize(assets, selection=["greetings/results"], instance=instance).success
        reported = [event.get(keys.SPEND_NOT_LOGGED_USD, 0.0) for event in events(instance)]
        assert spent(instance) + sum(reported) == pytest.approx(total, rel=1e-12)
        assert reported[-2:] == ([0.0, 0.0] if is_logged else [pytest.approx(total, rel=1e-12), 0.0])


def replace_ledger(root: Path, copy: Path | None) -> None:
    """Put the ledger of a copy of the root in place of its own; `None` for no ledger."""
    for path in root.glob("ledger*"):
        path.unlink()
    for path in copy.glob("ledger*") if copy is not None else ():
        shutil.copy(path, root / path.name)


@pytest.mark.parametrize("lost", ["ledger", "ledger and answers", "an older ledger"])
def test_the_log_decides_beside_a_lost_or_an_older_ledger(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path, lost: str
) -> None:
    """Each time the ledger does not know that the first batches were reported."""
    emulator.settings(latency=0.0)
    root = tmp_path / "root"
    assert dg.materialize(
        make_assets(), selection=["greetings/requests", "greetings/batches"], instance=instance
    ).success
    shutil.copytree(root, tmp_path / "copy")
    assert dg.materialize(make_assets(), selection=["greetings/results"], instance=instance).success
    once = paid(root)
    assert once > 0
    replace_ledger(root, tmp_path / "copy" if lost == "an older ledger" else None)
    if lost == "ledger and answers":
        for path in root.glob("*/responses/*.parquet"):
            path.unlink()
    assert dg.materialize(make_assets(rows=6), instance=instance).success
    total = paid(root)
    assert total > once
    assert spent(instance) == pytest.approx(total, rel=1e-12)
    assert not any(keys.SPEND_NOT_LOGGED_USD in event for event in events(instance))


def test_answers_whose_collection_was_killed_halfway_are_counted(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    """The response file is there, and the ledger has the batch as ended: as if killed between the two."""
    emulator.settings(latency=0.0)
    root = tmp_path / "root"
    assert dg.materialize(
        make_assets(), selection=["greetings/requests", "greetings/batches"], instance=instance
    ).success
    shutil.copytree(root, tmp_path / "copy")
    with open_root(Settings.from_env()) as opened:
        collect_results(opened, "greetings")
    replace_ledger(root, tmp_path / "copy")
    assert dg.materialize(make_assets(), selection=["greetings/results"], instance=instance).success
    assert spent(instance) == pytest.approx(paid(root), rel=1e-12)
