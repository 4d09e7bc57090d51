"""The server as a process: restarts, crashes, the command line."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anthropic
import httpx2
import psutil
import pytest

from batch_assets.emulator import Emulator
from batch_assets.emulator.serving import READY

from .conftest import requests

KEY = {"x-api-key": "k"}


@pytest.mark.parametrize("crash", [False, True])
def test_accepted_batches_survive_a_restart_and_a_crash(tmp_path: Path, crash: bool) -> None:
    with (
        Emulator(state=tmp_path, latency=1000) as emulator,
        anthropic.Anthropic(api_key="k", base_url=emulator.url, max_retries=0) as client,
    ):
        kept = client.messages.batches.create(requests=requests(10))
        canceled = client.messages.batches.create(requests=requests(10))
        gone = client.messages.batches.create(requests=requests(3))
        client.messages.batches.cancel(canceled.id)
        client.messages.batches.delete(canceled.id)
        emulator.end_batches(gone.id)
        emulator.clock(advance=500, skew=60)
        log, batch = emulator.log(custom_ids=True), client.messages.batches.retrieve(kept.id)
        url, pid = emulator.url, emulator.pid
        if crash:
            emulator.kill()
        emulator.restart()
        assert emulator.url == url and emulator.pid != pid
        assert emulator.log(custom_ids=True) == log
        assert log[0]["custom_ids"] == [f"row-{at}" for at in range(10)]
        assert client.messages.batches.retrieve(kept.id) == batch
        assert [batch.id for batch in client.messages.batches.list()] == [gone.id, kept.id]
        emulator.end_batches()
        assert len(list(client.messages.batches.results(kept.id))) == 10
        assert emulator.errors() == ""


def test_it_listens_on_the_loopback_address_by_default() -> None:
    """Tries another address of this machine. A server bound to all addresses would answer there."""
    for host, reachable in (("127.0.0.1", False), ("0.0.0.0", True)):
        with Emulator(**({"host": host} if reachable else {})) as emulator, socket.socket() as caller:
            port = int(emulator.url.rsplit(":", 1)[1])
            assert (caller.connect_ex(("127.0.0.2", port)) == 0) == reachable


def test_a_crash_during_an_upload_accepts_no_batch(tmp_path: Path) -> None:
    with Emulator(state=tmp_path) as emulator:
        body = b'{"requests":[{"custom_id":"a","params":{"x":"' + b"x" * 1_000_000

        def upload() -> object:
            yield body
            emulator.kill()
            yield body

        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{emulator.url}/v1/messages/batches", content=upload(), headers=KEY)  # type: ignore[arg-type]
        emulator.restart()
        assert emulator.log() == []
        assert list((tmp_path / "incoming").iterdir()) == []


def test_a_batch_whose_reply_was_lost_is_in_the_list(tmp_path: Path) -> None:
    with Emulator(state=tmp_path) as emulator:
        emulator.faults([{"match": {"method": "POST"}, "action": {"drop": "after_commit"}}])
        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{emulator.url}/v1/messages/batches", json={"requests": requests(4)}, headers=KEY)
        emulator.kill()
        emulator.restart()
        assert [entry["requests"] for entry in emulator.log()] == [4]
        listed = httpx2.get(f"{emulator.url}/v1/messages/batches", headers=KEY).json()
        assert [batch["id"] for batch in listed["data"]] == [emulator.log()[0]["id"]]


def test_accepted_requests_can_be_read_back(emulator: Emulator, http: httpx2.Client) -> None:
    sent = requests(3)
    batch_id = http.post("/v1/messages/batches", json={"requests": sent}).json()["id"]
    http.delete(f"/v1/messages/batches/{batch_id}")
    text = http.get(f"/_emulator/batches/{batch_id}/requests").text
    assert [json.loads(line) for line in text.splitlines()] == sent
    assert http.get("/_emulator/batches/msgbatch_unknown/requests").status_code == 404


def test_a_server_that_cannot_start_says_why(emulator: Emulator) -> None:
    taken = int(emulator.url.rpartition(":")[2])
    with pytest.raises(RuntimeError, match="Address already in use"), Emulator(port=taken):
        pass


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_command_line(tmp_path: Path, signal_number: int) -> None:
    command = [sys.executable, "-m", "batch_assets.emulator", "--port", "0", "--latency", "0", "--no-control"]
    command += ["--workspace", "k=mine", "--key", "k2", "--state", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().decode().removeprefix(READY).strip()
        batches = f"{url}/v1/messages/batches"
        created = httpx2.post(batches, json={"requests": requests(1)}, headers=KEY)
        assert created.status_code == 200
        assert httpx2.get(batches, headers={"x-api-key": "k2"}).json()["data"] == []
        assert httpx2.get(batches, headers={"x-api-key": "k3"}).status_code == 401
        assert httpx2.get(f"{url}/_emulator/log", headers=KEY).status_code == 404
        process.send_signal(signal_number)
        output, errors = process.communicate(timeout=20)
    assert (output, errors) == (b"", b"")
    assert (tmp_path / "emulator.db").exists()


def test_temporary_state_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-m", "batch_assets.emulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_server_stops_when_its_parent_dies() -> None:
    script = (
        "from batch_assets.emulator import Emulator; e = Emulator(); e.start(); print(e.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        server.wait(timeout=20)
