"""One deployment whose runs a schedule, files, conditions, HTTP and a backfill start, as documented."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from browser import click_through, find_chromium, open_page
from dagster_deployment import Deployment

from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.requests.build import build_requests
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from tests.core.support import environment
from tests.documentation import blocks

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds; each run is a process that imports Dagster, on a busy machine
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    found = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    conditions = dg.AutomationConditionSensorDefinition(
        "default_automation_condition_sensor",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5,
    )
    return dg.Definitions.merge(found, dg.Definitions(sensors=[conditions], executor=dg.in_process_executor))
"""
DOWNSTREAM = """
import dagster as dg

eager = dg.AutomationCondition.eager()


@dg.asset(deps=[dg.AssetKey(["half_rejected", "results"])], automation_condition=eager)
def eager_report() -> None: ...


@dg.asset(
    deps=[dg.AssetKey(["half_rejected", "results"])],
    automation_condition=eager & dg.AutomationCondition.all_deps_blocking_checks_passed(),
)
def guarded_report() -> None: ...

"""
_SCHEDULE = (
    "query($selector: ScheduleSelector!) {scheduleOrError(scheduleSelector: $selector) {... on Schedule {id}}}"
)
_STOP = """mutation($id: String!) {stopRunningSchedule(id: $id) {
  ... on ScheduleStateResult {scheduleState {status}} ... on PythonError {message}
}}"""
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
PIPELINE = """
type: batch_assets.MessageBatchComponent
attributes:
  name: {name}
  dataset: {{path: {path}, key: id}}
  params: {{model: claude-haiku-5-5, max_tokens: 50, messages: [{{role: user, content: "{{{{ text }}}}"}}]}}
"""


def write_project(folder: Path) -> None:
    """A project as in the documentation, with a pipeline for each way to start one."""
    package = folder / "automated"
    for name, path, fields in (
        ("review_triage", "reviews.csv", ""),
        ("half_rejected", "half.csv", '  schedule: "* * * * *"\n'),
        ("incoming", "incoming/{partition}.csv", "  watch: true\n  partitions: {dynamic: true}\n"),
        ("cached", "many.csv", "  cache: auto\n"),
        ("daily_reviews", "days/{partition}.csv", '  partitions: {daily: {start: "2026-01-01"}}\n'),
        ("late_reviews", "days/{partition}.csv", '  partitions: {daily: {start: "2026-01-01"}}\n'),
    ):
        (package / "defs" / name).mkdir(parents=True)
        text = PIPELINE.format(name=name, path=f'"{path}"') + fields
        if name == "cached":
            text = text.replace("max_tokens: 50,", f"max_tokens: 50, system: {'Shared by all. ' * 400},")
        (package / "defs" / name / "defs.yaml").write_text(text)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    (package / "defs" / "downstream.py").write_text(DOWNSTREAM)
    (package / "defs" / "daily.py").write_text(documented("python", "def daily_report"))
    (folder / "days").mkdir()
    for day in DAYS:
        (folder / "days" / f"{day}.csv").write_text("id,text\n1,good\n")
    (folder / "reviews.csv").write_text("id,text\n1,good\n2,bad\n")
    (folder / "many.csv").write_text("id,text\n" + "".join(f"{number},text {number}\n" for number in range(9)))
    (folder / "half.csv").write_text('id,text\n1,good\n2,""\n')
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "automated"\n'
        'code_location_name = "batch_assets"\n'
    )
    (folder / "workspace.yaml").write_text(
        "load_from: [{python_module: {module_name: automated.definitions, location_name: batch_assets}}]\n"
    )
    shutil.copy(REPOSITORY / "dagster.yaml", folder)


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def automated(running: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("automated")
    write_project(folder)
    home = tmp_path_factory.mktemp("automated_home")
    with Deployment(folder, home, running.url) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def backfill(automated: Deployment) -> str:
    """The id of a backfill of whole days. The daemon looks after it every 30 s, while other tests run."""
    return automated.backfill(DAYS, *(["daily_reviews", stage] for stage in ("requests", "batches", "results")))


@pytest.fixture(scope="module")
def late_backfills(automated: Deployment, running: Emulator) -> tuple[str, str]:
    """Backfills of results alone: of two days that wait for answers, and of another one that was never built."""
    settings = Settings.from_env(environment(running.url, automated.root))
    folder = automated.project / "automated" / "defs" / "late_reviews"
    fields = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
    pipeline = load_pipeline(fields, folder=folder, project=automated.project, source="defs.yaml")
    running.settings(latency=3600.0)
    with open_root(settings) as root:
        for day in DAYS[:2]:
            build_requests(root, pipeline, day)
            submit_batches(root, pipeline.name, day)
    running.settings(latency=0.0)
    results = ["late_reviews", "results"]
    return automated.backfill(DAYS[:2], results), automated.backfill(DAYS, results)


def documented(language: str, part: str) -> str:
    (documented_block,) = [
        block.text
        for block in blocks(language)
        if block.location.startswith("docs/automation.md") and part in block.text
    ]
    return documented_block


def run(deployment: Deployment, folder: Path, command: list[str], text: str) -> str:
    """Run what the page shows, against this deployment."""
    text = text.replace("http://127.0.0.1:3000", deployment.url)
    text = text.replace("port_number=3000", f"port_number={deployment.port}")
    done = subprocess.run(
        [*command, text],
        cwd=folder,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def materialized(deployment: Deployment, *key: str) -> list[dict[str, Any]]:
    return deployment.events("Materializations", *key)


def check_result(deployment: Deployment) -> str | None:
    return deployment.checks("half_rejected", "results").get("failed_rows_are_few")


@pytest.fixture(scope="module")
def cached_run(automated: Deployment) -> str:
    """The id of a run that sends only the stub of the prompt cache."""
    return automated.launch(*([["cached", stage] for stage in ("requests", "batches", "results")]))


def stop(deployment: Deployment, schedule: str) -> None:
    """Stop the schedule like a click in the UI. It ran once, and stays off although its file turns it on."""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "batch_assets",
        "scheduleName": schedule,
    }
    entry = deployment.query(_SCHEDULE, selector=selector)["scheduleOrError"]
    stopped = deployment.query(_STOP, id=entry["id"])["stopRunningSchedule"]
    assert stopped["scheduleState"]["status"] == "STOPPED"


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("backfill", "late_backfills")
def test_every_way_to_start_a_pipeline(
    automated: Deployment, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = automated.project
    # A file that arrives while the daemon runs, moved into its folder by a careful program.
    (folder / "incoming").mkdir()
    (folder / "incoming" / "2026-01-31.csv").write_text("id,text\n1,new\n")
    # From outside, with curl and with the client; the third way waits for the results.
    (tmp_path / "launch.json").write_text(documented("json", "launchRun"))
    answer = run(automated, tmp_path, ["bash", "-ec"], documented("sh", "curl"))
    assert '"__typename":"LaunchRunSuccess"' in answer.replace(" ", ""), answer
    run(automated, tmp_path, [sys.executable, "-c"], documented("python", "DagsterGraphQLClient"))
    run(automated, tmp_path, [sys.executable, "-c"], documented("python", "urllib"))
    assert set(pd.read_parquet(automated.root / "review_triage" / "results")["result_type"]) == {"succeeded"}

    request.getfixturevalue("cached_run")  # for the next test
    # The file's partition was found, added and run.
    automated.wait(lambda: materialized(automated, "incoming", "results"), PATIENCE)
    (table,) = (automated.root / "incoming" / "results").iterdir()
    assert table.name == "partition=2026-01-31"

    # The schedule ran the pipeline whose table fails its check: the guarded asset did not run, the other one did.
    automated.wait(lambda: materialized(automated, "half_rejected", "requests"), PATIENCE)
    stop(automated, "half_rejected_schedule")
    automated.wait(lambda: materialized(automated, "eager_report"), PATIENCE)
    # A second tick before the stop may have begun to check again.
    judged = automated.wait(
        lambda: check_result(automated) not in (None, "IN_PROGRESS") and check_result(automated), PATIENCE
    )
    assert judged == "FAILED"
    assert "half_rejected_schedule" in {
        tag["value"]
        for entry in automated.runs()
        for tag in entry["tags"]
        if tag["key"] == "dagster/schedule_name"
    }
    assert materialized(automated, "guarded_report") == []


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cached_run")
def test_the_sensor_lets_the_others_go_when_the_stub_of_the_prompt_cache_is_answered(
    automated: Deployment,
) -> None:
    event = automated.wait(lambda: materialized(automated, "cached", "results"), PATIENCE)[0]
    by_sensor = next(entry for entry in automated.runs() if entry["runId"] == event["runId"])
    assert "dagster/sensor_name" in {tag["key"] for tag in by_sensor["tags"]}
    table = pd.read_parquet(automated.root / "cached" / "results")
    is_stub = table["batch_id"].map(table["batch_id"].value_counts()) == 1
    assert (is_stub.sum(), table["batch_id"].nunique(), len(table)) == (1, 2, 9)
    written = table.loc[is_stub, "cache_creation_input_tokens"].item()
    assert written > 1000 and set(table.loc[~is_stub, "cache_read_input_tokens"]) == {written}


@pytest.mark.timeout(600)
def test_a_failed_check_says_why_in_the_browser(automated: Deployment) -> None:
    if find_chromium() is None:
        pytest.skip("NO BROWSER: install chromium to run the test that clicks through the UI")
    pytest.importorskip("playwright.sync_api", reason="NO BROWSER: playwright is not installed")
    if check_result(automated) is None:
        automated.launch(*([["half_rejected", stage] for stage in ("requests", "batches", "results")]))
    automated.wait(lambda: check_result(automated) == "FAILED", PATIENCE)
    with open_page(PATIENCE) as page:
        url = f"{automated.url}/assets/half_rejected/results?view=checks"
        why = page.get_by_text("1 of 2 rows failed (50%; max_failed is 1%): 1 rejected").first
        click_through(page, url, page.get_by_text("failed_rows_are_few").first, why)
        page.get_by_text("blocking asset check").first.wait_for()


@pytest.mark.timeout(600)
def test_a_backfill_of_days_succeeds_and_every_day_goes_downstream(automated: Deployment, backfill: str) -> None:
    """It ends when all is sent. The sensor materializes the results, which it has not, and so nothing failed."""
    automated.wait(lambda: automated.backfill_progress(backfill)[0].startswith("COMPLETED"), PATIENCE)
    sent = {"requests": (3, 3, 0), "batches": (3, 3, 0)}
    assert automated.backfill_progress(backfill) == ("COMPLETED_SUCCESS", sent)
    automated.wait(lambda: automated.partitions("daily_reviews", "results") == (DAYS, 0), PATIENCE)
    automated.wait(lambda: automated.partitions("daily_report") == (DAYS, 0), PATIENCE)


@pytest.mark.timeout(600)
def test_a_backfill_of_results_that_wait_for_answers_has_not_failed(
    automated: Deployment, running: Emulator, late_backfills: tuple[str, str]
) -> None:
    waiting, mixed = late_backfills
    for backfill in late_backfills:
        automated.wait(lambda id_=backfill: automated.backfill_progress(id_)[0] != "REQUESTED", PATIENCE)
    assert automated.backfill_progress(waiting) == ("COMPLETED_SUCCESS", {"results": (2, 0, 0)})
    assert automated.backfill_progress(mixed) == ("COMPLETED_FAILED", {"results": (3, 0, 0)})
    assert (automated.backfill_error(mixed) or "").startswith("1 partition gets no answers without a user")
    assert automated.partitions("late_reviews", "results") == ([], 0)
    running.end_batches()
    automated.wait(lambda: automated.partitions("late_reviews", "results") == (DAYS[:2], 0), PATIENCE)
