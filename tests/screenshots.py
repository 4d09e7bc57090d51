"""`make screenshots`: the pictures in docs/images, taken of a real deployment in a real browser.

It starts the UI with its daemon and the emulator, clicks Materialize all, ends one batch after the other, and
takes pictures of the pages that the docs show. This takes about three minutes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batch_assets.emulator import Emulator
from tests.dagster.browser import TALL, WIDE, click_through, find_chromium, open_page, shoot
from tests.dagster.dagster_deployment import Deployment
from tests.dashboard_server import DashboardServer

_REPOSITORY = Path(__file__).parents[1]
_IMAGES = _REPOSITORY / "docs" / "images"
_NAME = "review_triage"
# Small batches, so that there is progress to plot.
_BATCHING = "\n  batching: {max_requests: 20}\n"
# The groups that are open in the graph of all assets, and the part of its page without lists and buttons.
_GROUPS = ("message_batches", _NAME, "ticket_replies")
_LARGE = {"width": 1900, "height": 1200}
_GRAPH = {"x": 600, "y": 160, "width": 1240, "height": 890}
_DASHBOARD, _AT_A_GLANCE = {"width": 1240, "height": 1400}, {"x": 60, "y": 236, "width": 1120, "height": 990}
_SECONDS_A_BATCH = 6.0
_PATIENCE = 300.0
# The part of the tall pages between the navigation and the definition, whose paths belong to this run.
_PLOTS = {"x": 250, "y": 440, "width": 860, "height": 920}
_COLUMNS = {"x": 250, "y": 0, "width": 860, "height": 2200}


def main() -> None:
    """Take all pictures again."""
    if find_chromium() is None:
        sys.exit("There is no Chromium here. On Debian and Ubuntu: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator(latency=3600.0) as emulator,
        Deployment(_make_project(Path(folder, "project")), Path(folder), emulator.url) as deployment,
        open_page(_PATIENCE) as page,
    ):
        _materialize(deployment, page)
        _end_batches(deployment, page, emulator)
        _take(deployment, page)


def _make_project(folder: Path) -> Path:
    """Make a project like this one, with more batches in it."""
    (folder / "batch_assets").mkdir(parents=True)
    for name in ("data", "dagster.yaml", "pyproject.toml", "workspace.yaml"):
        (folder / name).symlink_to(_REPOSITORY / name)
    for entry in (_REPOSITORY / "batch_assets").iterdir():
        if entry.name not in ("defs", "__pycache__"):
            (folder / "batch_assets" / entry.name).symlink_to(entry)
    defs = folder / "batch_assets" / "defs"
    shutil.copytree(_REPOSITORY / "batch_assets" / "defs", defs)
    with (defs / _NAME / "defs.yaml").open("a") as file:
        file.write(_BATCHING)
    return folder


def _materialize(deployment: Deployment, page: Any) -> None:
    page.goto(_graph(deployment))
    page.get_by_role("button", name="Materialize all").first.click()
    print("waiting for the batches", flush=True)
    deployment.wait(lambda: deployment.events("Materializations", _NAME, "batches"), _PATIENCE)


def _end_batches(deployment: Deployment, page: Any, emulator: Emulator) -> None:
    """End one batch after the other. Take the pictures of the sensor's page and the dashboard halfway."""
    ids = [batch["id"] for batch in emulator.log()]
    for number, batch_id in enumerate(ids, 1):
        time.sleep(_SECONDS_A_BATCH)
        emulator.end_batches(batch_id)
        if number == len(ids) // 2:
            url = f"{deployment.url}/locations/batch_assets/sensors/message_batches_sensor"
            # The first two are the tags of the latest tick and of the first tick in the list. The third is that
            # tick's result, which opens its text.
            result = page.get_by_text("0 runs requested").nth(2)
            click_through(page, url, result, page.get_by_text("in progress").first)
            _shoot(page, "sensor")
            shoot_dashboard(page, deployment.root)
    deployment.launch(["message_batches", "spend"])
    for key in ([_NAME, "results"], ["review_summary"], ["message_batches", "spend"]):
        deployment.wait(lambda key=key: deployment.events("Materializations", *key), _PATIENCE)
    deployment.wait(lambda: deployment.checks(_NAME, "results"), _PATIENCE)


def shoot_dashboard(page: Any, root: Path) -> None:
    """Take the picture of the dashboard of a root."""
    with DashboardServer(root) as server:
        page.set_viewport_size(_DASHBOARD)
        page.goto(server.url)
        page.get_by_text("Latency of the provider").first.wait_for()
        page.locator(".vega-embed").nth(1).wait_for()
        _shoot(page, "dashboard", _AT_A_GLANCE)
        page.set_viewport_size(WIDE)


def _take(deployment: Deployment, page: Any) -> None:
    page.set_viewport_size(_LARGE)  # in a smaller one, the graph of all groups shows names only
    page.goto(f"{deployment.url}/asset-groups?expanded={','.join(f'global@global:{group}' for group in _GROUPS)}")
    page.get_by_text("Materialized", exact=True).nth(4).wait_for()
    _shoot(page, "asset-graph", _GRAPH)
    page.set_viewport_size(TALL)  # before the plots are drawn, which keep their size
    page.goto(f"{deployment.url}/assets/{_NAME}/batches")
    page.get_by_role("button", name="Plots").click()
    page.get_by_text("batch_assets/succeeded").first.wait_for()
    _shoot(page, "progress", _PLOTS)
    page.goto(f"{deployment.url}/assets/{_NAME}/results")
    page.get_by_text("Row count").first.wait_for()
    _shoot(page, "results", _COLUMNS)
    page.set_viewport_size(WIDE)
    page.goto(f"{deployment.url}/assets/{_NAME}/results?view=checks")
    page.get_by_text("failed_rows_are_few").first.wait_for()
    _shoot(page, "checks")


def _graph(deployment: Deployment) -> str:
    return f"{deployment.url}/locations/batch_assets/asset-groups/{_NAME}"


def _shoot(page: Any, name: str, clip: dict[str, int] | None = None) -> None:
    path = _IMAGES / f"{name}.png"
    shoot(page, path, clip)
    print(path.relative_to(_REPOSITORY), flush=True)


if __name__ == "__main__":
    main()
