"""End to end on a real deployment: one click, and the answers come back without another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster_deployment import Deployment

PATIENCE = 240.0  # seconds; each run is a process that imports Dagster, on a machine that does much else
STAGES = ("requests", "batches", "results")
_BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.mark.timeout(900)
def test_materialize_all_is_green_and_the_sensor_brings_the_results(deployment: Deployment) -> None:
    stages = [["review_triage", stage] for stage in STAGES]
    run = deployment.launch(*stages)
    deployment.wait(lambda: deployment.status(run) in ("SUCCESS", "FAILURE", "CANCELED"), PATIENCE)
    assert deployment.status(run) == "SUCCESS", deployment.log()[-4000:]
    by_hand = [event["runId"] for event in deployment.events("Materializations", "review_triage", "results")]
    assert run not in by_hand

    (result,) = deployment.wait(
        lambda: deployment.events("Materializations", "review_triage", "results"), PATIENCE
    )
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
    ended = ("SUCCESS", "FAILURE", "CANCELED")
    deployment.wait(lambda: all(other["status"] in ended for other in deployment.runs()), PATIENCE)
    assert {other["status"] for other in deployment.runs()} == {"SUCCESS"}, deployment.log()[-4000:]


@pytest.mark.timeout(900)
def test_one_click_in_the_browser(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("NO BROWSER: install chromium to run the test that clicks through the UI")
    sync_api = pytest.importorskip("playwright.sync_api", reason="NO BROWSER: playwright is not installed")
    screenshots = tmp_path_factory.mktemp("screenshots")
    group = f"{deployment.url}/locations/batch_assets/asset-groups/ticket_replies"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(group)
        for stage in STAGES:
            page.get_by_text(stage, exact=True).first.wait_for()
        assert "Materialized" not in page.inner_text("body")
        _shoot(page, screenshots, "before")
        page.get_by_role("button", name="Materialize all").first.click()
        deployment.wait(lambda: deployment.events("Materializations", "ticket_replies", "batches"), PATIENCE)
        _shoot(page, screenshots, "submitted")
        deployment.wait(lambda: deployment.events("Materializations", "ticket_replies", "results"), PATIENCE)
        page.get_by_text("Materialized").nth(2).wait_for()
        graph = page.inner_text("body")
        assert graph.count("Materialized") >= 3 and "Failed" not in graph, graph
        _shoot(page, screenshots, "complete")
        page.set_viewport_size({"width": 1500, "height": 2200})
        for name in (
            "ticket_replies/requests",
            "ticket_replies/batches",
            "ticket_replies/results",
            "review_summary",
        ):
            page.goto(f"{deployment.url}/assets/{name}")
            page.get_by_text("Latest materialization").first.wait_for()
            if name == "ticket_replies/results":
                _look_at_results(page, pd.read_parquet(deployment.root / name))
            _shoot(page, screenshots, name.replace("/", "_"))
            if name == "ticket_replies/batches":
                page.get_by_role("button", name="Plots").click()
                _shoot(page, screenshots, "plots")
        page.goto(f"{deployment.url}/assets/ticket_replies/results?view=checks")
        page.get_by_text("failed_rows_are_few").first.wait_for()
        _shoot(page, screenshots, "checks")
        page.goto(f"{deployment.url}/assets/review_summary")
        page.get_by_text("[Show Markdown]").first.click()
        page.get_by_role("img", name="Reviews by mood").wait_for()
        _shoot(page, screenshots, "chart")
        page.set_viewport_size({"width": 1500, "height": 900})
        page.goto(f"{deployment.url}/automation")
        page.get_by_text("message_batches_sensor").first.wait_for()
        _shoot(page, screenshots, "automation")
        browser.close()
    assert len(list(screenshots.glob("*.png"))) == 11


def _look_at_results(page: Any, table: pd.DataFrame) -> None:
    """What the page of a complete table tells a person: how many rows, and which columns."""
    page.get_by_text("Row count").first.wait_for()
    shown = page.inner_text("body")
    assert f"{len(table):,}" in shown, shown
    missing = [column for column in table.columns if column not in shown]
    assert missing == [], shown


def _shoot(page: Any, folder: Path, name: str) -> None:
    """A picture of the page, which is a PNG with something on it: an empty one has a few kilobytes."""
    page.wait_for_timeout(500)  # charts and graphs move into place
    path = folder / f"{name}.png"
    page.screenshot(path=str(path))
    image = path.read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(image) > 20_000, f"{name}: {len(image)} bytes"
