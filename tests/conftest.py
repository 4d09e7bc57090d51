"""Shared by all tests: the folder for temporary files, and that a test without its program can fail."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.distribution import Distribution
from tests.forked import PACKAGES, ForkServer

# Skip reasons begin with one of these if a system program is missing.
MISSING_PROGRAMS = ("NO AZURITE: ", "NO BROWSER: ", "NO MARIADB: ", "NO POSTGRESQL: ")

_MEMORY = Path("/dev/shm")
_PREFIX = "batch-assets-tests-"
_ENOUGH = 2 << 30  # bytes; the largest tests write some hundred megabytes, and delete them
_END_OF_CERTIFICATE = "-----END CERTIFICATE-----\n"

# Started first, so that no worker has one of them left at the end.
_LONGEST = (
    "dagster/test_stack.py",
    "dagster/test_deploy.py",
    "dagster/test_automation_daemon.py",
    "dagster/test_resource_daemon.py",
    "dagster/test_dg.py",
    "core/test_state_machine.py",
    "core/test_concurrency.py",
    "chaos/test_campaign.py",
    "cli/test_cancel.py",
    "core/test_kill.py",
    "core/results/test_responses.py",
    "core/batches/test_reconcile.py",
    "core/batches/test_split.py",
    "core/batches/test_submit.py",
    "dagster/test_sensor.py",
    "cli/test_run.py",
    "core/batches/test_poll.py",
)
# Half of the examples that hypothesis tries by default.
settings.register_profile("suite", max_examples=50, deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def python() -> Iterator[ForkServer]:
    """Interpreters that have imported all packages except ours."""
    with ForkServer(*PACKAGES) as server:
        yield server


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """Wheel and sdist, as users get them."""
    return Distribution.build(tmp_path_factory.mktemp("distribution"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With BATCH_ASSETS_REQUIRE_ALL set, as in CI, a skip because of a missing program is a failure.

    Its value is 1, or the programs that must be there: `azurite browser mariadb postgresql`.
    """
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(_required_programs()):
            report.outcome, report.longrepr = "failed", f"BATCH_ASSETS_REQUIRE_ALL is set, but {reason}"
    return report


def _required_programs() -> tuple[str, ...]:
    required = os.environ.get("BATCH_ASSETS_REQUIRE_ALL", "").split()
    marks = {mark.removeprefix("NO ").removesuffix(": ").lower(): mark for mark in MISSING_PROGRAMS}
    if unknown := {*required} - {"1"} - marks.keys():
        words = ", ".join(sorted(unknown))
        raise pytest.UsageError(
            f"BATCH_ASSETS_REQUIRE_ALL has {words}: set it to 1 or to some of {' '.join(marks)}"
        )
    return tuple(mark for program, mark in marks.items() if "1" in required or program in required)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    _required_programs()  # refuses words that would require nothing
    # Processes under test must react to Ctrl-C. A process that a shell starts in the background ignores it, and so
    # would everything that it starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without bytecode every process compiles our code, and every worker the tests with their assertions.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # Workers and all other processes inherit the variables.
    if not hasattr(config, "workerinput") and "TMPDIR" not in os.environ and (folder := _folder_in_memory()):
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        config.add_cleanup(lambda: _clear(folder))
        _trust_one(folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, and keep what was collected out of its sight.

    Thousands of tests and the modules that they import live until the end. Without this, each worker examines all
    of them again and again, which took a third of the time of collecting.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes after their argument: what a compressor writes differs by time, and so would the names.

    Tests whose names differ between workers stop the whole run.
    """
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    order = {str(tests / name): position for position, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(str(item.path), len(order)))


def _folder_in_memory() -> Path | None:
    """A folder in memory for temporary files, or None: on disk, half of the suite's time went into fsyncs."""
    try:
        space = os.statvfs(_MEMORY)
        if space.f_bavail * space.f_frsize < _ENOUGH:
            return None
        for leftover in _MEMORY.glob(f"{_PREFIX}*"):
            if not Path("/proc", leftover.name.removeprefix(_PREFIX)).exists():
                shutil.rmtree(leftover, ignore_errors=True)
        folder = _MEMORY / f"{_PREFIX}{os.getpid()}"
        folder.mkdir(mode=0o755)  # the servers of databases run as another user
    except OSError:
        return None
    return folder


def _clear(folder: Path) -> None:
    """Delete temporary files, except those of failed tests, which stay until the next run."""
    for entry in folder.iterdir():
        if not (entry.name.startswith("pytest-of-") and any(entry.glob("pytest-*/*"))):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _trust_one(folder: Path) -> None:
    """Let clients of the API read one certificate instead of all that the system trusts, which takes 30 to 80 ms.

    Here the API is never called over TLS, so one is enough.
    """
    paths = ssl.get_default_verify_paths()
    try:
        first, end, _ = Path(paths.cafile or paths.openssl_cafile).read_text().partition(_END_OF_CERTIFICATE)
    except OSError:
        return
    if end:
        (folder / "certificate.pem").write_text(first[first.index("-----BEGIN") :] + end)
        os.environ["SSL_CERT_FILE"] = str(folder / "certificate.pem")
