"""Unusual texts, names and files: every ledger accepts them, and errors stay readable."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.api.errors import ApiError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.errors import BusyError, SettingsError
from batch_assets.core.ledger import Ledger, leases
from batch_assets.core.settings import Settings

from .support import BATCHES, World, texts

CREATE = {"method": "POST", "path": BATCHES}


def test_every_ledger_takes_a_long_partition_key(ledger_url: str, new_world: Callable[..., World]) -> None:
    world = new_world(ledger=ledger_url)
    pipeline, partition = world.pipeline(texts(3)), "p" * 200
    world.send(pipeline, partition)
    done = world.finish(pipeline, partition)
    assert done.results is not None and done.results.counts == {"succeeded": 3}


def test_long_names_of_leases_are_distinguished(ledger_url: str) -> None:
    ledger, name = Ledger(ledger_url), "n" * 300
    try:
        with leases.hold(ledger, name + "a") as lease, leases.hold(ledger, name + "b"):
            assert leases.try_take(ledger, name + "a") is None
            with pytest.raises(BusyError, match=name + "a"), leases.hold(ledger, name + "a"):
                pass
            lease._renew()
            with ledger.read() as tx:
                assert lease.is_ours(tx)
                assert leases.is_held(tx, name + "a")
                assert not leases.is_held(tx, name + "c")
                assert (leases.ended_at(tx, name + "a") or 0.0) > tx.now
        with leases.mark(ledger, name, "p"), ledger.read() as tx:
            assert leases.is_held(tx, name)
        with ledger.read() as tx:
            assert leases.ended_at(tx, name) is None
    finally:
        ledger.close()


@pytest.mark.parametrize("bad", ["\\u0000", "\\ud800", "\\u001b[31m"])
@pytest.mark.parametrize("status", [400, 500])
def test_every_ledger_takes_any_text_of_a_refusal(
    ledger_url: str, new_world: Callable[..., World], bad: str, status: int
) -> None:
    world = new_world(ledger=ledger_url)
    message = f"before {bad} after " + "x" * 5000 + " the end"
    body = f'{{"type": "error", "error": {{"type": "invalid_{bad}", "message": "{message}"}}}}'
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": status, "body": body}}])
    pipeline = world.pipeline(texts(1))
    world.send(pipeline)
    reason = next(row.reason for row in world.query("select reason from history") if "before" in row.reason)
    assert "before \ufffd" in reason and reason.endswith("the end")
    assert len(reason) < 2500


def test_an_error_keeps_readable_text() -> None:
    assert str(ApiError("HTTP 400: Ünïcode 漢字 😀\nin\ttwo lines")) == "HTTP 400: Ünïcode 漢字 😀\nin\ttwo lines"


@pytest.mark.parametrize("batch_id", ["../../x", "a\0b", "a\ud800", "a\nb"])
def test_an_id_that_cannot_name_a_file_is_not_a_batch(batch_id: str) -> None:
    with pytest.raises(ValueError, match="is not a valid batch id"):
        BatchObject.parse({"id": batch_id, "created_at": "2026-11-20T00:00:00Z"})


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:-2000] = bytes(len(content[4:-2000]))  # the footer stays as it is
    path.write_bytes(content)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60:64] = b"####"  # in a digest, which would be that of another request
    path.write_bytes(content)


def _strip(path: Path) -> None:
    pq.write_table(pa.table({"digest": pa.array([b"1"])}), path)


@pytest.mark.parametrize("damage", [_cut, _garble, _flip, _strip])
def test_a_damaged_response_file_is_named_and_replaced(
    world: World, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = world.pipeline(texts(40))
    world.run(pipeline)
    (stored,) = world.path(pipeline.name, "responses").glob("*.parquet")
    damage(stored)
    damaged = stored.read_bytes()
    with caplog.at_level(logging.WARNING, "batch_assets"):
        report = world.build(pipeline)
    assert report.in_flight == 40
    assert f"{stored} is damaged, and was renamed to {stored.name}.damaged" in caplog.text
    assert stored.with_name(stored.name + ".damaged").read_bytes() == damaged
    world.submit(pipeline)
    done = world.finish(pipeline)
    assert done.results is not None and done.results.counts == {"succeeded": 40}
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("damage", [_cut, _garble, _flip, _strip])
def test_results_name_a_damaged_response_file_and_write_the_table_without_it(
    world: World, damage: Callable[[Path], None]
) -> None:
    pipeline = world.pipeline(texts(40), batching={"max_requests": 20})
    world.run(pipeline)
    first, _ = world.accepted()
    stored = world.path(pipeline.name, "responses", f"{first['id']}.parquet")
    damage(stored)
    done = world.collect(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"pending": 20, "succeeded": 20}
    assert any(str(stored) in problem and "downloaded again" in problem for problem in done.problems)
    done = world.finish(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": 40}
    assert len(world.accepted()) == 2


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "nothing://user:pass-word@host/name",
        "postgresql+nothing://user:pass-word@host/name",
        "oracle://user:pass-word@host",
    ],
)
def test_a_ledger_that_cannot_be_opened_is_reported_in_a_sentence(url: str) -> None:
    with pytest.raises(SettingsError, match="the URL of the ledger") as caught:
        Ledger(url)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql+pymysql://user:pass-word@host/name", "duckdb:///ledger.duckdb"])
def test_a_ledger_on_another_database_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="but a ledger is on SQLite or PostgreSQL") as caught:
        Ledger(url)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("seconds", ["abc", "0", "-1", "nan", "inf"])
def test_invalid_lease_seconds_are_reported_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_LEASE_SECONDS", seconds)
    with pytest.raises(SettingsError, match=r"BATCH_ASSETS_LEASE_SECONDS is .* seconds, above 0"):
        Settings.from_env()  # before anything is written
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    try:
        with pytest.raises(SettingsError, match="BATCH_ASSETS_LEASE_SECONDS"):
            leases.try_take(ledger, "a")
    finally:
        ledger.close()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("BATCH_ASSETS_RECONCILE_GRACE", "nan", "set it to a number of seconds, 0 or more"),  # no age is below nan
        ("BATCH_ASSETS_RECONCILE_GRACE", "inf", "set it to a number of seconds, 0 or more"),
        ("BATCH_ASSETS_EMULATOR", "localhost:4010", "set it to one such as http://127.0.0.1:4010"),
        ("BATCH_ASSETS_EMULATOR", "4010", "set it to one such as http://127.0.0.1:4010"),
        ("ANTHROPIC_BASE_URL", "gateway.example", "set it to one such as https://api.anthropic.com"),
        ("ANTHROPIC_BASE_URL", "https:gateway.example", "set it to one such as https://api.anthropic.com"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is .*{remedy}"):
        Settings.from_env({name: value})


def test_a_lease_ages_while_the_machine_is_suspended() -> None:
    """In a time namespace, the clock that counts suspended time differs from the one that does not."""
    unshared = ["unshare", "--time", "--boottime", "1000000"]
    if shutil.which("unshare") is None or subprocess.run([*unshared, "true"], capture_output=True).returncode:
        pytest.skip("no time namespaces here")
    code = "from batch_assets.core.ledger.clock import steady; print(steady())"
    done = subprocess.run([*unshared, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > time.monotonic() + 900_000


def test_every_ledger_takes_any_status() -> None:
    seen = BatchObject.parse(
        {"id": "msgbatch_a", "created_at": "2026-11-20T00:00:00Z", "processing_status": "new\0one"}
    )
    assert seen.processing_status == "newone"
