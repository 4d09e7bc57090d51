"""The steps and checks of a run use one open root."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from batch_assets.core.settings import Settings
from batch_assets.dagster.run_roots import close_idle, root_of_run
from tests.core.support import environment, wait_for


def settings(folder: Path, name: str = "root") -> Settings:
    root, ledger = folder / name, f"sqlite:///{folder}/{name}.db"
    return Settings.from_env(environment("http://127.0.0.1:1", str(root), ledger))


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    yield
    close_idle()


def test_the_next_step_of_a_run_uses_the_open_root(tmp_path: Path) -> None:
    with root_of_run("run", settings(tmp_path)) as first:
        ledger = first.ledger
    with root_of_run("run", settings(tmp_path)) as second:
        assert second is first and second.ledger is ledger
    close_idle()
    with root_of_run("run", settings(tmp_path)) as third:
        assert third is not first


def test_another_run_and_another_root_are_opened(tmp_path: Path) -> None:
    with root_of_run("run", settings(tmp_path)) as first:
        ledger = first.ledger
    with root_of_run("another run", settings(tmp_path)) as second:
        assert second is not first and first.ledger is not ledger, "the first one was closed"
    with root_of_run("another run", settings(tmp_path, "other")) as third:
        assert third is not second
    first.close()


def test_two_steps_at_a_time_have_a_root_each(tmp_path: Path) -> None:
    with root_of_run("run", settings(tmp_path)) as first, root_of_run("run", settings(tmp_path)) as second:
        assert second is not first
        ledger = first.ledger
    with root_of_run("run", settings(tmp_path)) as third:
        assert third is first and third.ledger is ledger, "the last one that was left stays open"


def test_a_root_that_nothing_uses_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two runs, the ledger of a long-lived process is one file."""
    monkeypatch.setattr("batch_assets.dagster.run_roots._IDLE_SECONDS", 0.01)
    with root_of_run("run", settings(tmp_path)) as first, first.ledger.write():
        assert (tmp_path / "root.db-wal").exists()
    wait_for(lambda: not (tmp_path / "root.db-wal").exists(), "the ledger is closed")
    with root_of_run("run", settings(tmp_path)) as second:
        assert second is not first


def test_a_process_with_one_step_leaves_none_open(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        assert processes.submit(open_files_after_a_step, tmp_path).result() == ["root", "root.db"]


def open_files_after_a_step(folder: Path) -> list[str]:
    with root_of_run("run", settings(folder)) as root, root.ledger.write():
        pass
    return sorted(path.name for path in folder.iterdir())


def test_a_step_that_fails_closes_its_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError), root_of_run("run", settings(tmp_path)) as first:
        ledger = first.ledger
        raise ValueError
    with root_of_run("run", settings(tmp_path)) as second:
        assert second is not first
    assert first.ledger is not ledger, "it was closed"
    first.close()
