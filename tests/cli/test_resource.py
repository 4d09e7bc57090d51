"""The command line with a pipeline whose root and API are those of a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from batch_assets.emulator import Emulator

from .support import Project

RESOURCES = """
import dagster as dg

from batch_assets import MessageBatchResource

defs = dg.Definitions(
    resources={{
        "eu": MessageBatchResource(root={root!r}, emulator_url={url!r}),
        "away": MessageBatchResource(root={root!r}, ledger="postgresql+psycopg2://me@127.0.0.1:1/ledger"),
        "number": 5,
        "keyed": MessageBatchResource(root={root!r}, api_key=dg.EnvVar("NOT_SET_ANYWHERE")),
    }}
)
"""
COUNTED = """
import dagster as dg


@dg.definitions
def defs():
    with open({path!r}, "a") as file:
        file.write("loaded ")
    return dg.Definitions()
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Emulator]:
    with Emulator(latency=0.0) as running:
        yield running


@pytest.fixture
def two_roots(project: Project, elsewhere: Emulator) -> Project:
    """A project with one pipeline in the environment's root, and one in another root."""
    project.add_pipeline("greetings", ["one", "two"])
    project.add_pipeline("gruesse", ["eins"], resource_key="eu")
    resources = RESOURCES.format(root=str(project.folder / "eu"), url=elsewhere.url)
    (project.folder / "batch_assets" / "defs" / "resources.py").write_text(resources)
    return project


def test_each_pipeline_is_run_under_its_own_root(two_roots: Project, elsewhere: Emulator) -> None:
    before = len(elsewhere.log())
    for name in ("greetings", "gruesse"):
        done = two_roots.run("run", name)
        assert done.returncode == 0, done.stderr
    assert [batch["requests"] for batch in two_roots.accepted()] == [2]
    assert [batch["requests"] for batch in elsewhere.log()[before:]] == [1]
    table = pd.read_parquet(two_roots.folder / "eu" / "gruesse" / "results")
    assert list(table["result_type"]) == ["succeeded"]
    # For other pipelines, the command names the option to use.
    environment_status, resource_status = (
        two_roots.run("status").stdout,
        two_roots.run("status", "--resource", "eu").stdout,
    )
    assert ("greetings" in environment_status, "gruesse" in environment_status) == (True, False)
    assert ("greetings" in resource_status, "gruesse" in resource_status) == (False, True)
    assert elsewhere.log()[-1]["id"] in two_roots.run("list", "--resource", "eu").stdout
    assert "No run of gruesse is recorded; add --resource KEY for" in two_roots.run("status", "gruesse").stdout
    refused = two_roots.run("cancel", "gruesse")
    assert (
        refused.returncode == 1
        and "; add --resource KEY for a pipeline that has a `resource_key`" in refused.stderr
    )
    canceled = two_roots.run("cancel", "gruesse", "--resource", "eu")
    assert (canceled.returncode, canceled.stdout) == (0, "Nothing had to be canceled.\n")


def test_an_invalid_resource_is_reported(two_roots: Project) -> None:
    error = two_roots.run("status", "--resource", "us").stderr
    assert "Error: the project's definitions have no resource 'us'; those with a root: away, eu, keyed" in error
    error = two_roots.run("status", "--resource", "number").stderr
    assert "Error: resource_key: 'number' is a int; a MessageBatchResource is needed" in error
    error = two_roots.run("status", "--resource", "keyed").stderr
    assert "NOT_SET_ANYWHERE" in error and "Traceback" not in error


def test_the_ledger_of_an_error_is_that_of_the_resource(two_roots: Project) -> None:
    done = two_roots.run("status", "--resource", "away")
    assert done.returncode == 1
    assert (
        "Error: the ledger postgresql+psycopg2://me@127.0.0.1:1/ledger cannot be reached: connection to"
        in done.stderr
    )


def test_a_command_loads_the_definitions_once(two_roots: Project) -> None:
    two_roots.add_pipeline("saludos", ["uno"], resource_key="eu")
    loads = two_roots.folder / "loads"
    (two_roots.folder / "batch_assets" / "defs" / "counted.py").write_text(COUNTED.format(path=str(loads)))
    done = two_roots.run("check", "gruesse", "saludos")
    assert (done.returncode, done.stdout) == (0, f"{two_roots.folder}: 2 pipeline files are right\n"), done.stderr
    assert loads.read_text().split() == ["loaded"]
