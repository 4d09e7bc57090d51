"""Results prepared while a batch is in process are the same bytes as results made at download."""

import time
from pathlib import Path

import httpx2
import pytest

from batch_assets.emulator import Emulator

HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
MIX = {"match": {"method": "POST"}, "action": {"error_mix": {"overloaded_error": 0.2, "refusal": 0.2}}}


def create(emulator: Emulator, rows: int = 300) -> str:
    params = {"model": "claude-haiku-5-5", "max_tokens": 50}
    requests = [
        {"custom_id": f"row-{row}", "params": params | {"messages": [{"role": "user", "content": f"Text {row}"}]}}
        for row in range(rows)
    ]
    answer = httpx2.post(
        f"{emulator.url}/v1/messages/batches", json={"requests": requests}, headers=HEADERS, trust_env=False
    )
    answer.raise_for_status()
    batch_id: str = answer.json()["id"]
    return batch_id


def download(emulator: Emulator, batch_id: str) -> bytes:
    url = f"{emulator.url}/v1/messages/batches/{batch_id}/results"
    answer = httpx2.get(url, headers=HEADERS, trust_env=False)
    answer.raise_for_status()
    return answer.content


def prepared(state: Path, batch_id: str) -> Path:
    file = state / "bodies" / f"{batch_id}.results"
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return file


def test_prepared_results_equal_those_made_at_download(tmp_path: Path) -> None:
    with Emulator(latency=600.0, state=tmp_path) as emulator:
        emulator.faults([MIX])
        batch_id = create(emulator)
        file = prepared(tmp_path, batch_id)
        emulator.clock(advance=601)
        served = download(emulator, batch_id)
        assert served == file.read_bytes()
        file.unlink()
        emulator.restart()
        assert download(emulator, batch_id) == served
        assert served.count(b"\n") == 300


def test_downloads_come_from_the_prepared_file(tmp_path: Path) -> None:
    with Emulator(latency=600.0, state=tmp_path) as emulator:
        batch_id = create(emulator, 1)
        prepared(tmp_path, batch_id).write_bytes(b"from the file\n")
        emulator.end_batches(batch_id)
        assert download(emulator, batch_id) == b"from the file\n"


@pytest.mark.parametrize(
    "action", [{"lines": {"missing": 3}}, {"truncate": {"lines": 297}, "ending": "clean"}], ids=["lines", "cut"]
)
def test_faults_apply_to_prepared_results(tmp_path: Path, action: dict[str, object]) -> None:
    with Emulator(latency=600.0, state=tmp_path) as emulator:
        batch_id = create(emulator)
        prepared(tmp_path, batch_id)
        emulator.end_batches(batch_id)
        emulator.faults([{"match": {"path": "/v1/messages/batches/*/results"}, "action": action}])
        assert download(emulator, batch_id).count(b"\n") == 297


def test_a_canceled_batch_has_its_own_results(tmp_path: Path) -> None:
    with Emulator(latency=600.0, state=tmp_path) as emulator:
        batch_id = create(emulator)
        prepared(tmp_path, batch_id)
        emulator.clock(frozen=True)
        url = f"{emulator.url}/v1/messages/batches/{batch_id}/cancel"
        httpx2.post(url, headers=HEADERS, trust_env=False).raise_for_status()
        emulator.clock(advance=60)
        assert download(emulator, batch_id).count(b'{"type":"canceled"}') > 250


def test_without_a_latency_nothing_is_prepared(tmp_path: Path) -> None:
    with Emulator(latency=0.0, state=tmp_path) as emulator:
        batch_id = create(emulator)
        assert download(emulator, batch_id).count(b"\n") == 300
        assert not list((tmp_path / "bodies").glob("*.results"))


def test_stopping_during_preparation_leaves_no_partial_file(tmp_path: Path) -> None:
    with Emulator(latency=600.0, state=tmp_path) as emulator:
        batch_id = create(emulator, 20_000)
        emulator.restart()
        assert not list((tmp_path / "incoming").iterdir())
        emulator.end_batches(batch_id)
        assert download(emulator, batch_id).count(b"\n") == 20_000
