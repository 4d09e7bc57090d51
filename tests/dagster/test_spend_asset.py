"""The asset `message_batches/spend`, which every pipeline of a code location brings along, and the command."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from click.testing import CliRunner

from batch_assets import build_message_batch_assets, build_message_batch_spend
from batch_assets.cli import main
from batch_assets.core.spend.spend_table import Labels
from batch_assets.dagster import keys
from batch_assets.dagster.assets.spend import labels_of
from batch_assets.emulator import Emulator
from tests.core.support import environment, params, texts, write_rows

ASSET = dg.AssetKey(["message_batches", "spend"])


@pytest.fixture
def definitions(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """Two pipelines in Python, and the asset."""
    for name, value in environment(emulator.url, tmp_path / "root").items():
        monkeypatch.setenv(name, value)
    made: list[dg.AssetsDefinition] = []
    for name in ("asked", "other"):
        write_rows(tmp_path / f"{name}.jsonl", texts(3, name))
        assets = build_message_batch_assets(
            folder=tmp_path,
            project=tmp_path,
            name=name,
            dataset={"path": f"{name}.jsonl", "key": "id"},
            params=params(),
            cost_center="4711" if name == "asked" else None,
        )
        made += assets
    return dg.Definitions(assets=[*made, build_message_batch_spend()])


def test_the_table_of_all_pipelines(definitions: dg.Definitions, emulator: Emulator, tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for name in ("asked", "other"):
            job = definitions.resolve_implicit_global_asset_job_def()
            stages = [dg.AssetKey([name, stage]) for stage in ("requests", "batches", "results")]
            for some in (stages[:2], stages[2:]):
                assert job.execute_in_process(instance=instance, asset_selection=some).success
                emulator.end_batches()
        done = job.execute_in_process(instance=instance, asset_selection=[ASSET])
        (event,) = done.asset_materializations_for_node("message_batches__spend")
        log = [entry.user_message for entry in instance.all_logs(done.run_id)]
        assert any(line.startswith("2 response files new or changed; less than $0.0001 in all") for line in log), (
            log
        )
        table = pd.read_parquet(tmp_path / "root" / "spend.parquet")
        total = sum(table["cost_usd"])
        assert event.metadata[keys.SPEND_TOTAL_USD].value == pytest.approx(float(total)) and total > 0
        assert event.metadata["batch_assets/spend_saved_batch_usd"].value == pytest.approx(float(total))
        assert "asked" in str(event.metadata[keys.SPEND_BY_PIPELINE].value)
        assert "█" in str(event.metadata[keys.SPEND_BY_DAY].value)
        assert keys.SPENT_USD not in event.metadata, "an amount that is added up over events counts once"

    shown = CliRunner().invoke(main, ["spend"])
    assert shown.exit_code == 0, shown.output
    assert [line.split()[0] for line in shown.output.splitlines()[1:3]] == ["asked", "other"]
    for arguments in (["spend", "--csv"], ["spend", "--by", "model", "--csv"]):
        printed = CliRunner().invoke(main, arguments).output
        lines = list(csv.DictReader(io.StringIO(printed)))
        assert sum(Decimal(line["cost_usd"]) for line in lines) == total, "exactly"


def test_cost_centers_and_tags_come_from_the_definitions(definitions: dg.Definitions) -> None:
    specs = [
        spec.merge_attributes(tags={"team": "reviews"}) if spec.key.path[0] == "asked" else spec
        for spec in definitions.resolve_all_asset_specs()
    ]
    assert labels_of(specs) == {"asked": Labels("4711", {"team": "reviews"}), "other": Labels()}


def test_a_root_without_anything(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(emulator.url, tmp_path / "root").items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(main, ["spend"])
    assert (shown.exit_code, shown.output.splitlines()[-1]) == (0, "$0.0000 in all")
    assert CliRunner().invoke(main, ["spend", "--csv"]).exit_code == 0


def test_each_resource_has_an_asset_of_its_own() -> None:
    of_key = build_message_batch_spend(resource_key="eu")
    assert of_key.key == dg.AssetKey(["message_batches", "spend_eu"])
    assert "eu" in of_key.required_resource_keys
