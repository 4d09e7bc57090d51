"""The API key is in nothing that Dagster stores: runs, events, metadata, logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.emulator import Emulator

KEY = "sk-ant-api03-RECOGNIZE-ME-4712"
CREATE = {"method": "POST", "path": "/v1/messages/batches"}
RESULTS = {"method": "GET", "path": "/v1/messages/batches/*/results"}


def test_dagster_keeps_no_key(
    make_assets: Callable[..., list[dg.AssetsDefinition]],
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("BATCH_ASSETS_EMULATOR")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", emulator.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    body = {"type": "error", "error": {"type": "authentication_error", "message": f"invalid key {KEY}"}}
    emulator.faults(
        [
            {"match": {**CREATE, "nth": 1}, "action": {"status": 401, "body": body}},
            {"match": {**CREATE, "nth": 2}, "action": {"status": 500, "body": KEY}},
            {"match": {**RESULTS, "nth": 1}, "action": {"status": 403, "body": body}},
        ]
    )
    monkeypatch.setenv("BATCH_ASSETS_RECONCILE_GRACE", "0")
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        succeeded = []
        for _ in range(5):
            done = dg.materialize(make_assets(), instance=instance, raise_on_error=False)
            succeeded.append(done.success)
            emulator.end_batches()
        assert succeeded == [False, True, True, True, True]
        events = done.get_asset_materialization_events()
        assert "results" in {event.asset_key.path[-1] for event in events if event.asset_key is not None}
    assert [rule["hits"] for rule in emulator.control("faults")] == [1, 1, 1]
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in home.rglob("*"))
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
