"""What all tests share: where there may be no gaps, a test skipped for want of a program fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest

# Skip reasons begin with one of these when a program of the system is missing.
MISSING_PROGRAMS = ("NO BROWSER: ", "NO POSTGRESQL: ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With BATCH_ASSETS_REQUIRE_ALL set, as in CI, such a skip is a failure."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and os.environ.get("BATCH_ASSETS_REQUIRE_ALL"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(MISSING_PROGRAMS):
            report.outcome, report.longrepr = "failed", f"BATCH_ASSETS_REQUIRE_ALL is set, but {reason}"
    return report


def pytest_configure() -> None:
    """Processes under test must take a Ctrl-C: what a shell starts in the background ignores it, and so
    would everything started from there."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
