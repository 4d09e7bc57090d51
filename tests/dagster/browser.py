"""A real browser for the UI: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_OPENINGS = 12
_OPEN_SECONDS, _SEEN_SECONDS = 60.0, 15.0
WIDE = {"width": 1500, "height": 900}
TALL = {"width": 1500, "height": 2200}


def find_chromium() -> str | None:
    """Return the path of the system's Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name)) is not None), None)


@contextmanager
def open_page(patience: float) -> Iterator[Any]:
    """A page in a browser of its own.

    Args:
        patience: Seconds that it waits for what the test looks for.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_ARGUMENTS)
        try:
            page = browser.new_page(viewport=WIDE, reduced_motion="reduce")
            page.set_default_timeout(patience * 1000)
            yield page
        finally:
            browser.close()


def rest(page: Any) -> None:
    """Show nothing while the test waits for something else: a page of Dagster never stops drawing and asking."""
    page.goto("about:blank")


def click_through(page: Any, url: str, clicked: Any, wanted: Any) -> None:
    """Open a page and click until something is visible there.

    A click can get lost while a page still loads or moves.

    Args:
        clicked, wanted: Locators on the page.
    """
    from playwright.sync_api import TimeoutError as NotSeenError

    for _ in range(_OPENINGS):
        page.goto(url)
        with suppress(NotSeenError):
            clicked.click(timeout=_OPEN_SECONDS * 1000)
            wanted.wait_for(timeout=_SEEN_SECONDS * 1000)
            return
    raise AssertionError(f"never seen: {wanted}; {url} shows\n{page.inner_text('body')}")


def shoot(page: Any, path: Path, clip: dict[str, int] | None = None) -> None:
    """Take a picture of the page as a PNG, which must not be empty: an empty page has a few kilobytes.

    Args:
        clip: x, y, width and height of the part to take.
    """
    page.wait_for_timeout(500)  # charts and graphs move into position
    page.screenshot(path=str(path), **({"clip": clip} if clip else {}))
    image = path.read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(image) > 20_000, f"{path.name}: {len(image)} bytes"
