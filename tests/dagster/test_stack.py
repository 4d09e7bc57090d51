"""End to end on a real deployment: after one click, the answers come back without another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import TALL, click_through, find_chromium, open_page, rest, shoot
from dagster_deployment import Deployment

from batch_assets.emulator import Emulator
from tests.forked import ForkServer

PATIENCE = 240.0  # seconds; each run is a process that imports Dagster, on a busy machine
STAGES = ("requests", "batches", "results")
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@pytest.fixture(scope="module")
def triage(deployment: Deployment) -> str:
    """A run of all stages of review_triage that has been launched."""
    return deployment.launch(*[["review_triage", stage] for stage in STAGES])


@pytest.mark.timeout(900)
def test_one_click_in_the_browser(
    deployment: Deployment, triage: str, patient_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if find_chromium() is None:
        pytest.skip("NO BROWSER: install chromium to run the test that clicks through the UI")
    pytest.importorskip("playwright.sync_api", reason="NO BROWSER: playwright is not installed")
    look = _Looker(deployment, tmp_path_factory.mktemp("screenshots"))
    with open_page(PATIENCE) as page:
        look.click_materialize_all(page)
        look.at_the_sensor(page)
        rest(page)
        # They would bring the results back themselves before their runs are over.
        deployment.wait(lambda: all(run["status"] in ENDED for run in deployment.runs()), PATIENCE)
        patient_emulator.end_batches()
        look.at_a_complete_graph(page)
        page.set_viewport_size(TALL)
        look.at_requests(page)
        look.at_batches(page)
        look.at_results(page)
        look.at_the_summary(page)
    assert len(list(look.screenshots.glob("*.png"))) == 9


@pytest.mark.timeout(900)
def test_materialize_all_is_green_and_the_sensor_brings_the_results(
    deployment: Deployment, triage: str, patient_emulator: Emulator
) -> None:
    deployment.wait(lambda: deployment.status(triage) in ENDED, PATIENCE)
    assert deployment.status(triage) == "SUCCESS", deployment.log()[-4000:]
    patient_emulator.end_batches()
    (result,) = deployment.wait(
        lambda: deployment.events("Materializations", "review_triage", "results"), PATIENCE
    )
    assert result["runId"] != triage
    assert result["dagster/row_count"] == 240
    assert result["batch_assets/succeeded"] == 238
    assert result["batch_assets/rejected"] == 2
    collected = next(other for other in deployment.runs() if other["runId"] == result["runId"])
    assert "batch_assets/round" in {tag["key"] for tag in collected["tags"]}
    assert len(deployment.events("Materializations", "review_triage", "batches")) == 1
    (seen, *_) = deployment.events("Observations", "review_triage", "batches")
    assert seen["batch_assets/succeeded"] == 229

    (summary,) = deployment.wait(lambda: deployment.events("Materializations", "review_summary"), PATIENCE)
    assert summary["chart"].startswith("![Reviews by mood](data:image/png;base64,")
    table = pd.read_parquet(deployment.root / "review_triage" / "results")
    assert len(table) == 240
    products = pd.read_parquet(deployment.root / "review_summary" / "summary.parquet")
    assert products["reviews"].sum() == 238
    checks = deployment.checks("review_triage", "results")
    assert set(checks) >= {"every_row_once", "failed_rows_are_few", "enum_values_are_expected"}
    assert set(checks.values()) == {"SUCCEEDED"}
    deployment.wait(lambda: all(other["status"] in ENDED for other in deployment.runs()), PATIENCE)
    assert {other["status"] for other in deployment.runs()} == {"SUCCESS"}, deployment.log()[-4000:]


@pytest.mark.timeout(900)
def test_the_doctor_finds_nothing_wrong(
    deployment: Deployment, patient_emulator: Emulator, python: ForkServer
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "BATCH_"))}
    env |= {
        "DAGSTER_HOME": str(deployment.home / "dagster"),
        "BATCH_ASSETS_ROOT": str(deployment.root),
        "BATCH_ASSETS_EMULATOR": patient_emulator.url,
    }

    def is_well() -> bool:
        done = python.python("-m", "batch_assets.cli", "doctor", cwd=deployment.project, env=env, timeout=PATIENCE)
        print(done.stdout, done.stderr)
        return done.returncode == 0 and "message_batches_sensor ticked last" in done.stdout

    deployment.wait(is_well, PATIENCE)  # the sensor may not have ticked yet
    assert "not in force" not in deployment.log()


class _Looker:
    """What a user looks for on each page of ticket_replies, with a picture of it."""

    def __init__(self, deployment: Deployment, screenshots: Path) -> None:
        self.deployment, self.screenshots = deployment, screenshots

    def click_materialize_all(self, page: Any) -> None:
        page.goto(f"{self.deployment.url}/locations/batch_assets/asset-groups/ticket_replies")
        for stage in STAGES:
            page.get_by_text(stage, exact=True).first.wait_for()
        assert "Materialized" not in page.inner_text("body")
        self._shoot(page, "before")
        page.get_by_role("button", name="Materialize all").first.click()
        self._wait_for("Materializations", "batches")
        self._shoot(page, "submitted")

    def at_the_sensor(self, page: Any) -> None:
        """The message of the newest tick, behind the tag of its result."""
        click_through(
            page,
            f"{self.deployment.url}/locations/batch_assets/sensors/message_batches_sensor",
            page.get_by_text("0 runs requested").nth(2),
            page.get_by_text("Skip reason").first,
        )
        self._shoot(page, "sensor")

    def at_a_complete_graph(self, page: Any) -> None:
        self._wait_for("Materializations", "results")
        page.goto(f"{self.deployment.url}/locations/batch_assets/asset-groups/ticket_replies")
        page.get_by_text("Materialized").nth(2).wait_for()
        graph = page.inner_text("body")
        assert graph.count("Materialized") >= 3 and "Failed" not in graph, graph
        self._shoot(page, "complete")

    def at_requests(self, page: Any) -> None:
        self._open(page, "ticket_replies/requests")
        self._see(page, "claude-haiku-5-5")  # the params, in the description
        self._shoot(page, "requests")

    def at_batches(self, page: Any) -> None:
        self._open(page, "ticket_replies/batches")
        page.get_by_role("button", name="Plots").click()
        page.get_by_text("batch_assets/succeeded").first.wait_for()
        page.locator("canvas").first.wait_for()
        self._shoot(page, "plots")

    def at_results(self, page: Any) -> None:
        """The number of rows, the columns, some of the rows, and the checks."""
        table = pd.read_parquet(self.deployment.root / "ticket_replies" / "results")
        page.goto(f"{self.deployment.url}/assets/ticket_replies/results")
        self._see(page, "Row count", f"{len(table):,}", *table.columns)
        self._shoot(page, "results")
        sample = page.get_by_role("row").filter(has_text="batch_assets/sample")
        ticket = page.get_by_text(str(table["ticket_id"][0])).first
        click_through(page, page.url, sample.get_by_text("[Show Markdown]"), ticket)
        url = f"{self.deployment.url}/assets/ticket_replies/results?view=checks"
        passed = page.get_by_text("Passed", exact=True).first
        click_through(page, url, page.get_by_text("failed_rows_are_few").first, passed)
        assert "rows failed (" not in page.inner_text("body"), "a check says nothing of what passed"
        self._shoot(page, "checks")

    def at_the_summary(self, page: Any) -> None:
        """The chart of an asset downstream of the other pipeline's results."""
        rest(page)
        self.deployment.wait(lambda: self.deployment.events("Materializations", "review_summary"), PATIENCE)
        url, chart = (
            f"{self.deployment.url}/assets/review_summary",
            page.get_by_role("img", name="Reviews by mood"),
        )
        click_through(page, url, page.get_by_text("[Show Markdown]").first, chart)
        self._shoot(page, "chart")

    def _open(self, page: Any, asset: str) -> None:
        page.goto(f"{self.deployment.url}/assets/{asset}")
        page.get_by_text("Latest materialization").first.wait_for()

    def _see(self, page: Any, *texts: str) -> None:
        """Wait for all of these texts: Dagster fills in a page piece by piece."""
        from playwright.sync_api import TimeoutError as NotSeenError

        try:
            page.wait_for_function(
                "texts => texts.every(text => document.body.innerText.includes(text))", arg=list(texts)
            )
        except NotSeenError:
            body = page.inner_text("body")
            missing = [text for text in texts if text not in body]
            pytest.fail(f"not on the page: {missing}\n{body}")

    def _wait_for(self, kind: str, stage: str) -> None:
        self.deployment.wait(lambda: self.deployment.events(kind, "ticket_replies", stage), PATIENCE)

    def _shoot(self, page: Any, name: str) -> None:
        shoot(page, self.screenshots / f"{name}.png")
