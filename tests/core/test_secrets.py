"""The API key appears in no file, no output and no error, whatever fails."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from batch_assets.core.errors import BatchAssetsError, SettingsError, SubmissionStoppedError
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator

from .support import BATCHES, CREATE, RESULTS, World, texts

KEY = "sk-ant-api03-RECOGNIZE-ME-4711"
GATEWAY_KEY = "dXNlcjpSRUNPR05JWkUtTUU="
_RUN = """
import time, traceback
from batch_assets.core.results.run import collect_results
from batch_assets.core.batches.poll import poll
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.batches.submit import submit_batches
root = open_root()
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


def _error(message: str, **more: object) -> dict[str, object]:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message, **more}}


# Everything that can go wrong with a call, once. Gateways are known to repeat in an error what was sent to them.
_CREATES: list[dict[str, object]] = [
    {"status": 401, "body": _error(f"invalid x-api-key {KEY}")},
    {"status": 403, "body": f"<html>{KEY} may not do that</html>"},
    {"status": 403, "body": f"<html>Basic {GATEWAY_KEY}, or {GATEWAY_KEY} alone, may not do that</html>"},
    {"status": 429, "headers": {"retry-after": "0"}, "body": _error(f"Bearer {KEY} is too fast")},
    {"status": 429, "body": _error(f"{KEY} spent", details={"error_code": "enforced_spend_limit_reached"})},
    {"status": 400, "body": _error("Your credit balance is too low")},
    {"status": 400, "body": _error(f"The request body is not valid JSON: {KEY}")},
    {"status": 413, "body": f"<html>{KEY} is too large</html>", "early": True},
    {"status": 404, "body": _error(f"no such place: {KEY}")},
    {"status": 405, "body": ""},
    {"status": 307, "headers": {"location": "http://127.0.0.1:9/elsewhere"}},
    {"drop": "before_body"},
    {"drop": "before_commit", "reset": True},
    {"drop": "after_commit"},
    *({"status": status, "body": f"oops {KEY}"} for status in (408, 409, 500, 504, 529)),
    {"status": 200, "body": f"garbage {KEY}"},
    {"status": 200, "body": ""},
]
_READS: list[dict[str, object]] = [
    {"status": 403, "body": _error(f"{KEY} may not")},
    {"status": 500, "body": KEY},
    {"status": 200, "body": f"garbage {KEY}"},
    {"status": 404, "body": _error(KEY)},
]
_DOWNLOADS: list[dict[str, object]] = [
    {"truncate": {"fraction": 0.5}, "ending": "reset"},
    {"status": 401, "body": _error(f"{KEY} may not")},
    {"status": 404, "body": _error(KEY)},
    {"lines": {"garbage": 1}},
    {"results_url": f"http://127.0.0.1:9/{KEY}"},
]


def test_the_key_is_written_nowhere(new_world: Callable[..., World], tmp_path: Path) -> None:
    plain = new_world()
    env = {
        "ANTHROPIC_BASE_URL": plain.emulator.url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_CUSTOM_HEADERS": f"Proxy-Authorization: Basic {GATEWAY_KEY}",
        "ANTHROPIC_LOG": "debug",
        "BATCH_ASSETS_RECONCILE_GRACE": "0",
    }
    world = new_world(name="keyed", BATCH_ASSETS_EMULATOR="", **env)
    world.build(world.pipeline(texts(6), batching={"max_requests": 3}))
    singly = {"method": "GET", "path": f"{BATCHES}*"}
    faults = [{"match": {**CREATE, "nth": nth}, "action": action} for nth, action in enumerate(_CREATES, 1)]
    faults += [{"match": {**singly, "nth": 5 * nth}, "action": action} for nth, action in enumerate(_READS, 1)]
    faults += [{"match": {**RESULTS, "nth": nth}, "action": action} for nth, action in enumerate(_DOWNLOADS, 1)]
    world.emulator.faults(faults)
    settings = world.root.settings
    child_env = os.environ | env | {"BATCH_ASSETS_ROOT": settings.root, "BATCH_ASSETS_LEDGER": settings.ledger_url}
    child_env.pop("BATCH_ASSETS_EMULATOR", None)
    done = subprocess.run(
        [sys.executable, "-c", _RUN], env=child_env, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert "final True" in done.stdout, done.stdout[-2000:]
    assert [rule["match"] for rule in world.emulator.control("faults") if not rule["hits"]] == []
    assert "Traceback" in done.stderr  # some calls failed
    assert "HTTP Request" in done.stderr or "Sending HTTP Request" in done.stderr  # the SDK logged something
    output = (done.stdout + done.stderr).splitlines()
    assert [line for line in output if KEY in line or GATEWAY_KEY in line] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "emulator" not in path.parts]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert GATEWAY_KEY.encode() not in content, path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANTHROPIC_BASE_URL", f"https://user:{KEY}@gateway.example"),
        ("ANTHROPIC_BASE_URL", f"https://{KEY}@gateway.example/v1"),
        ("ANTHROPIC_BASE_URL", f"https://gateway.example?key={KEY}"),
        ("BATCH_ASSETS_EMULATOR", f"http://user:{KEY}@127.0.0.1:8010"),
    ],
)
def test_a_base_url_with_a_secret_in_it_is_refused_without_repeating_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.from_env({name: value})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://user:{KEY}@127.0.0.1:9/ledger",
        f"postgresql+psycopg2://user:{KEY}@127.0.0.1:port/ledger",
        f"postgresql+nonesuch://user:{KEY}@127.0.0.1/ledger",
        f"nonesuch://user:{KEY}@127.0.0.1/ledger",
        f"user:{KEY}@127.0.0.1",
    ],
)
def test_the_password_of_a_ledger_is_in_no_error(url: str, tmp_path: Path) -> None:
    root = open_root(Settings.from_env({"BATCH_ASSETS_ROOT": str(tmp_path), "BATCH_ASSETS_LEDGER": url}))
    with pytest.raises((BatchAssetsError, SQLAlchemyError)) as caught:
        _ = root.ledger
    trace = "".join(traceback.format_exception(caught.value))
    assert KEY not in trace
    assert KEY not in repr(caught.value)


def test_an_emulator_is_never_sent_the_real_key(
    new_world: Callable[..., World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This emulator accepts only the real key and refuses what arrives, so that was not the real key."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with Emulator(state=tmp_path / "state", keys=[KEY]) as strict:
        world = new_world(BATCH_ASSETS_EMULATOR=strict.url)
        world.build(world.pipeline(texts(1)))
        with pytest.raises(SubmissionStoppedError, match="HTTP 401"):
            world.submit(world.pipeline())
