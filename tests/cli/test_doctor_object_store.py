"""`batch-assets doctor` with a root in an object store, and with errors that no one expects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.cli.doctor.api import api_findings
from batch_assets.cli.doctor.finding import Finding, Findings, Mark, ok
from batch_assets.cli.doctor.findings import to_its_end
from batch_assets.cli.doctor.ledger import ledger_findings
from batch_assets.cli.doctor.root import root_findings
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from tests.core.io.object_stores import SECRET, S3Server

from .support import Project


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def marks(stdout: str) -> dict[str, str]:
    """The mark of each concern."""
    return {line.split()[1]: line.split()[0] for line in stdout.splitlines()}


def test_a_bucket_that_does_not_exist(project: Project, s3_server: S3Server) -> None:
    project.env |= s3_server.environment | {
        "BATCH_ASSETS_ROOT": "s3://no-such-bucket/root",
        "BATCH_ASSETS_LEDGER": f"sqlite:///{project.folder}/ledger.db",
    }
    project.add_pipeline("asked", ["one"])
    failed = project.run("run", "asked")
    assert failed.returncode == 1
    assert "s3://no-such-bucket/root/root.json cannot be written" in failed.stderr
    done = project.run("doctor")
    assert done.stdout.startswith("wrong    root         s3://no-such-bucket/root/doctor-")
    found = marks(done.stdout)
    assert (found["root"], found["pairing"], found["clock"], found["sensor"]) == (
        "wrong",
        "wrong",
        "ok",
        "skipped",
    )


def test_a_store_that_does_not_answer(
    project: Project, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_env(
        {
            "BATCH_ASSETS_ROOT": f"{s3_server.new_bucket()}/root",
            "BATCH_ASSETS_LEDGER": f"sqlite:///{project.folder}/ledger.db",
            "BATCH_ASSETS_EMULATOR": project.env["BATCH_ASSETS_EMULATOR"],
        }
    )
    with open_root(settings) as root:
        assert root.mark
    answered = threading.Event()
    s3_server.before = lambda *_: answered.wait() and None
    try:
        silent = [str(finding) for finding in root_findings(settings, 0.1)]
        assert "has not answered within 0 s: check the store's endpoint" in silent[0]
        others = [*ledger_findings(settings, root_answers=False), *api_findings(settings, root_answers=False)]
    finally:
        answered.set()
        s3_server.before = lambda *_: None
    found = {finding.concern: finding.mark for finding in others}
    assert (found["ledger"], found["pairing"], found["clock"]) == (Mark.OK, Mark.SKIPPED, Mark.OK)


def test_an_error_that_nobody_expects_is_a_finding(tmp_path: Path) -> None:
    options = f'{{"secret": "{SECRET}"}}'
    settings = Settings.from_env(
        {
            "BATCH_ASSETS_ROOT": "memory://bucket",
            "BATCH_ASSETS_LEDGER": "postgresql+psycopg2://me:pass-w0rd@db/ledger",
            "BATCH_ASSETS_STORAGE_OPTIONS": options,
        }
    )

    def check() -> Findings:
        yield ok("root", "it is there")
        raise RuntimeError(f"{SECRET} and pass-w0rd are wrong")

    first, second = to_its_end("root", check(), settings)
    assert first == ok("root", "it is there")
    assert second == Finding(
        Mark.WRONG, "root", "the check ended with an error (RuntimeError: *** and *** are wrong)"
    )
