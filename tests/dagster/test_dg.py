"""The `dg` commands, as a user types them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from dagster import ScaffoldRequest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.dagster.scaffold import MessageBatchScaffolder, MessageBatchScaffoldParams
from batch_assets.emulator import Emulator
from tests.distribution import Distribution
from tests.forked import ForkServer

REPOSITORY = Path(__file__).parents[2]
_DG = "import sys; from dagster_dg_cli.cli import main; sys.argv[0] = 'dg'; main()"


@pytest.fixture(scope="module")
def installed(distribution: Distribution, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has installed the wheel: nothing of this repository is beside it."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(distribution.wheel) as wheel:
        wheel.extractall(folder)
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.fixture
def dg(python: ForkServer, installed: dict[str, str]) -> Callable[..., str]:
    """Run `dg` in a project, and return its output."""

    def run(project: Path, *arguments: str) -> str:
        env = None if project == REPOSITORY else installed
        done = python.python("-c", _DG, *arguments, cwd=project, env=env, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own project."""
    folder = tmp_path_factory.mktemp("project")
    package = folder / "scaffolded"
    (package / "defs").mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copytree(REPOSITORY / "batch_assets" / "definitions", package / "definitions")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "scaffolded"\nversion = "0.1.0"\n\n[tool.dg]\ndirectory_type = "project"\n\n'
        '[tool.dg.project]\nroot_module = "scaffolded"\n'
    )
    return folder


def test_check_defs() -> None:
    """The program itself, in an interpreter of its own."""
    program = Path(sys.executable).with_name("dg")
    done = subprocess.run([program, "check", "defs"], cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully." in done.stdout


def test_list_defs_and_components(dg: Callable[..., str]) -> None:
    listed = json.loads(dg(REPOSITORY, "list", "defs", "--json"))
    assert "review_triage/results" in {asset["asset_key"] for asset in listed["assets"]}
    assert "message_batches_sensor" in {sensor["name"] for sensor in listed["sensors"]}
    components = json.loads(dg(REPOSITORY, "list", "components", "--json"))
    assert "batch_assets.MessageBatchComponent" in {component["key"] for component in components["items"]}
    inspected = dg(REPOSITORY, "utils", "inspect-component", "batch_assets.MessageBatchComponent")
    _, scaffolding, component = re.split(r"^(?:Scaffold params|Component) schema:$", inspected, flags=re.MULTILINE)
    assert set(json.loads(scaffolding)["properties"]) == {"model", "dataset", "sql", "url_env", "asset"}
    assert _undescribed_fields(json.loads(scaffolding)) == []
    assert _undescribed_fields(json.loads(component)) == []


def _undescribed_fields(schema: dict[str, Any]) -> list[str]:
    """Fields of a schema, and of those within it, that have no description."""
    blocks = [schema, *schema.get("$defs", {}).values()]
    fields = [(name, field) for block in blocks for name, field in block["properties"].items()]
    assert fields
    return [name for name, field in fields if not field.get("description")]


def test_a_scaffolded_pipeline_runs_unchanged(
    project: Path, tmp_path: Path, dg: Callable[..., str], python: ForkServer, installed: dict[str, str]
) -> None:
    dg(project, "scaffold", "defs", "batch_assets.MessageBatchComponent", "shop/first-steps")
    with Emulator(latency=0.0) as emulator:
        env = installed | {
            "BATCH_ASSETS_EMULATOR": emulator.url,
            "BATCH_ASSETS_ROOT": str(tmp_path / "root"),
            "DAGSTER_HOME": str(tmp_path),
        }
        selection = ["--select", "first_steps/requests,first_steps/batches,first_steps/results"]
        command = ["-m", "dagster", "asset", "materialize", "-m", "scaffolded.definitions"]
        done = python.python(*command, *selection, cwd=project, env=env, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    where = "import batch_assets; print(batch_assets.__file__)"
    found = python.python("-c", where, cwd=project, env=env, timeout=240).stdout
    assert found.startswith(installed["PYTHONPATH"])
    table = pd.read_parquet(tmp_path / "root" / "first_steps" / "results")
    assert table["result_type"].tolist() == ["succeeded"] * 3


def test_a_pipeline_scaffolded_from_a_dataset_loads_and_runs(
    project: Path, tmp_path: Path, dg: Callable[..., str], python: ForkServer
) -> None:
    (project / "data").mkdir(exist_ok=True)
    (project / "data" / "letters.csv").write_text(
        "branch,letter_id,Full Text,author\n"
        "x,7,The parcel came two days late.,Ann\n"
        "x,8,Ten years and not one seam has opened.,Bo\n"
    )
    scaffold_params = {"model": "claude-of-tomorrow", "dataset": "data/letters.csv"}
    arguments = ["scaffold", "defs", "batch_assets.MessageBatchComponent"]
    dg(project, *arguments, "2026", "--json-params", json.dumps(scaffold_params))
    folder = project / "scaffolded" / "defs" / "2026"
    assert sorted(path.name for path in folder.iterdir()) == ["defs.yaml", "output.schema.json", "system.md"]
    attributes = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
    assert attributes["name"] == "2026"
    assert attributes["dataset"] == {"path": "data/letters.csv", "key": "letter_id"}
    assert attributes["params"]["model"] == "claude-of-tomorrow"
    assert attributes["params"]["messages"][0]["content"] == "{{ row['Full Text'] }}"
    pipeline = load_pipeline(attributes, folder=folder, project=project)
    with Dataset(pipeline) as opened:
        (rows,) = opened.rows(["letter_id", "Full Text"])
    assert b"Ten years and not one seam" in pipeline.template.render(rows.table.to_pylist()[1])
    wrong = [*arguments, "wrong", "--model", "claude haiku"]
    done = python.python("-c", _DG, *wrong, cwd=project, timeout=240)
    assert done.returncode == 1
    assert "not the name of a model" in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.with_name("wrong").exists()


def test_a_dataset_is_written_to_the_file_as_it_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the dataset was found, and whatever has happened to it since."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "workspace.yaml").touch()  # a project for us, but not for dg
    (inner / "letters.csv").write_text("letter_id,body\n7,The parcel came late.\n")
    (tmp_path / "letters.csv").write_text("id,text\n1,Another file of that name.\n")
    monkeypatch.chdir(inner)
    params = MessageBatchScaffoldParams.model_validate({"dataset": "letters.csv"})
    (inner / "letters.csv").unlink()
    request = ScaffoldRequest(
        type_name="batch_assets.MessageBatchComponent",
        target_path=tmp_path,
        scaffold_format="yaml",
        project_root=tmp_path,
        params=params,
        append=False,
    )
    MessageBatchScaffolder().scaffold(request)
    written = yaml.safe_load((tmp_path / "defs.yaml").read_text())["attributes"]
    assert written["dataset"] == {"path": "inner/letters.csv", "key": "letter_id"}
    assert written["params"]["messages"][0]["content"] == "{{ body }}"
