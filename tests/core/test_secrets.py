"""The API key appears in no file, no output and no error, whatever fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.core.errors import SubmissionStoppedError
from batch_assets.emulator import Emulator

from .support import CREATE, RESULTS, World, texts

KEY = "sk-ant-api03-RECOGNISE-ME-4711"
_RUN = """
import time, traceback
from batch_assets.core.chain import collect_results
from batch_assets.core.poll import poll
from batch_assets.core.root import Root
from batch_assets.core.submit import submit_batches
root = Root.from_env()
end = time.monotonic() + 60
final = False
while time.monotonic() < end and not final:
    try:
        report = submit_batches(root, "asked")
        print(report, poll(root, now=True))
        done = collect_results(root, "asked")
        print(done.problems)
        final = done.results.final
    except Exception:
        traceback.print_exc()
print("final", final)
"""


def test_the_key_is_written_nowhere(new_world: Callable[..., World], tmp_path: Path) -> None:
    plain = new_world()
    env = {
        "ANTHROPIC_BASE_URL": plain.emulator.url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_LOG": "debug",
        "BATCH_ASSETS_RECONCILE_GRACE": "0",
    }
    world = new_world(name="keyed", BATCH_ASSETS_EMULATOR="", **env)
    world.build(world.pipeline(texts(6), batching={"max_requests": 2}))
    error = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
    world.emulator.faults(
        [
            {"match": {**CREATE, "nth": 1}, "action": {"status": 401, "body": error}},
            {"match": {**CREATE, "nth": 2}, "action": {"status": 429, "headers": {"retry-after": "0"}}},
            {"match": {**CREATE, "nth": 3}, "action": {"drop": "after_commit"}},
            {"match": {**CREATE, "nth": 4}, "action": {"status": 500, "body": "<html>oops</html>"}},
            {"match": {"method": "GET", "nth": [2, 9]}, "action": {"status": 403}},
            {"match": {"method": "GET", "nth": [5, 11]}, "action": {"status": 200, "body": "garbage"}},
            {"match": {**RESULTS, "nth": 1}, "action": {"truncate": {"fraction": 0.5}, "ending": "reset"}},
            {"match": {**RESULTS, "nth": 2}, "action": {"status": 401, "body": error}},
        ]
    )
    settings = world.root.settings
    child_env = os.environ | env | {"BATCH_ASSETS_ROOT": settings.root, "BATCH_ASSETS_LEDGER": settings.ledger_url}
    child_env.pop("BATCH_ASSETS_EMULATOR", None)
    done = subprocess.run(
        [sys.executable, "-c", _RUN], env=child_env, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert "final True" in done.stdout, done.stdout[-2000:]
    assert "Traceback" in done.stderr  # calls did fail
    assert "HTTP Request" in done.stderr or "Sending HTTP Request" in done.stderr  # the SDK did log
    secret = KEY.encode()
    assert secret not in (done.stdout + done.stderr).encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "emulator" not in path.parts]
    assert len(files) > 10
    for path in files:
        assert secret not in path.read_bytes(), path


def test_an_emulator_is_never_sent_the_real_key(
    new_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator that takes this key alone refuses what arrives: it is not the key."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with Emulator(state=tmp_path / "state", keys=[KEY]) as strict:
        world = new_world(BATCH_ASSETS_EMULATOR=strict.url)
        world.build(world.pipeline(texts(1)))
        with pytest.raises(SubmissionStoppedError, match="HTTP 401"):
            world.submit(world.pipeline())
