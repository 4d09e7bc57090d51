"""Two roots with two endpoints in one real deployment: webserver, daemon and code server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from dagster_deployment import Deployment

from batch_assets.emulator import Emulator

REPOSITORY = Path(__file__).parents[2]
KEY = "sk-ant-api03-RECOGNIZE-ME-EU-4712"
PATIENCE = 300.0  # seconds; each run is a process that imports Dagster, on a busy machine
DEFINITIONS = """
from pathlib import Path

import dagster as dg

from batch_assets import MessageBatchResource


@dg.definitions
def defs():
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    eu = MessageBatchResource(root={root!r}, emulator_url={url!r}, api_key=dg.EnvVar("EU_KEY"))
    return dg.Definitions.merge(found, dg.Definitions(resources={{"eu": eu}}, executor=dg.in_process_executor))
"""
PIPELINE = """
type: batch_assets.MessageBatchComponent
attributes:
  name: {name}
  dataset: {{path: {name}.csv, key: id}}
  params: {{model: claude-haiku-5-5, max_tokens: 50, messages: [{{role: user, content: "{{{{ text }}}}"}}]}}
"""
RESOURCES = """
{ topLevelResourceDetailsOrError(resourceSelector: {
    repositoryName: "__repository__", repositoryLocationName: "batch_assets", resourceName: "eu"
  }) { ... on ResourceDetails {
    configuredValues { key value type } sensorsUsing assetKeysUsing { path }
} } }
"""
BROKEN = """
{ assetNodeOrError(assetKey: {path: ["broken", "results"]}) { ... on AssetNode {
  description
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    status evaluation { description }
  } } } }
} } }
"""
METADATA = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  metadataEntries { label __typename ... on PathMetadataEntry { path } }
} } }
"""


@dataclass(frozen=True)
class TwoRoots:
    """A deployment, and the root and the endpoint of the pipeline `gruesse`."""

    deployment: Deployment
    root: Path
    here: Emulator
    elsewhere: Emulator


@pytest.fixture(scope="module")
def two_roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRoots]:
    folder = tmp_path_factory.mktemp("two_roots")
    root = folder / "eu"
    package = folder / "two_roots"
    with Emulator(latency=1.0) as here, Emulator(latency=1.0) as elsewhere, pytest.MonkeyPatch.context() as patch:
        for name, more, rows in (
            ("greetings", "", "1,good\n2,bad\n"),
            ("gruesse", "  resource_key: eu\n", "1,gut\n"),
        ):
            (package / "defs" / name).mkdir(parents=True)
            (package / "defs" / name / "defs.yaml").write_text(PIPELINE.format(name=name) + more)
            (folder / f"{name}.csv").write_text("id,text\n" + rows)
        # A broken file stops none of the others.
        (package / "defs" / "broken").mkdir()
        (package / "defs" / "broken" / "defs.yaml").write_text(PIPELINE.format(name="broken") + "  retry: 3\n")
        (package / "__init__.py").touch()
        (package / "definitions.py").write_text(DEFINITIONS.format(root=str(root), url=elsewhere.url))
        (folder / "pyproject.toml").write_text(
            '[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "two_roots"\n'
            'code_location_name = "batch_assets"\n'
        )
        (folder / "workspace.yaml").write_text(
            "load_from: [{python_module: {module_name: two_roots.definitions, location_name: batch_assets}}]\n"
        )
        shutil.copy(REPOSITORY / "dagster.yaml", folder)
        patch.setenv("EU_KEY", KEY)
        with Deployment(folder, tmp_path_factory.mktemp("two_roots_home"), here.url) as deployed:
            yield TwoRoots(deployed, root, here, elsewhere)


def test_the_sensor_of_each_root_brings_its_results(two_roots: TwoRoots) -> None:
    deployment = two_roots.deployment
    for name in ("greetings", "gruesse"):
        deployment.launch([name, "requests"], [name, "batches"], [name, "results"])
    for name in ("greetings", "gruesse"):
        deployment.wait(lambda name=name: deployment.events("Materializations", name, "results"), PATIENCE)
    assert [batch["requests"] for batch in two_roots.here.log()] == [2]
    assert [batch["requests"] for batch in two_roots.elsewhere.log()] == [1]
    for root, name, rows in ((deployment.root, "greetings", 2), (two_roots.root, "gruesse", 1)):
        table = pd.read_parquet(root / name / "results")
        assert list(table["result_type"]) == ["succeeded"] * rows
        assert sorted(path.name for path in root.iterdir() if path.is_dir()) == [name]


def test_the_ui_shows_that_a_file_is_broken(two_roots: TwoRoots) -> None:
    deployment = two_roots.deployment
    problem = "two_roots/defs/broken/defs.yaml:7: retry: give a map of its fields, not 3"
    deployment.wait(lambda: '"FAILED"' in json.dumps(deployment.query(BROKEN)), PATIENCE)
    asset = deployment.query(BROKEN)["assetNodeOrError"]
    assert problem in asset["description"].replace("\\", "")
    (check,) = asset["assetChecksOrError"]["checks"]
    assert check["name"] == "pipeline_file_is_valid"
    assert check["executionForLatestMaterialization"]["status"] == "FAILED"
    description = check["executionForLatestMaterialization"]["evaluation"]["description"]
    assert problem in description.replace("\\", "")


def test_the_ui_shows_who_uses_the_resource_and_never_its_key(two_roots: TwoRoots) -> None:
    deployment = two_roots.deployment
    details = deployment.query(RESOURCES)["topLevelResourceDetailsOrError"]
    values = {entry["key"]: (entry["type"], entry["value"]) for entry in details["configuredValues"]}
    assert values["api_key"] == ("ENV_VAR", "EU_KEY")
    assert details["sensorsUsing"] == ["message_batches_eu_sensor"]
    used = sorted("/".join(key["path"]) for key in details["assetKeysUsing"])
    assert used == ["gruesse/batches", "gruesse/requests", "gruesse/results", "message_batches/spend_eu"]
    assert KEY not in json.dumps(details)
    files = [path for path in deployment.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    for path in [*files, *(path for path in two_roots.root.rglob("*") if path.is_file())]:
        with suppress(FileNotFoundError):  # SQLite removes files of its own while Dagster runs
            assert KEY.encode() not in path.read_bytes(), path


def test_the_ui_shows_the_pipelines_file_as_a_path(two_roots: TwoRoots) -> None:
    node = two_roots.deployment.query(METADATA, key={"path": ["gruesse", "requests"]})["assetNodeOrError"]
    entries = {entry["label"]: entry for entry in node["metadataEntries"]}
    assert entries["batch_assets/pipeline"]["path"] == "two_roots/defs/gruesse/defs.yaml"
