"""The trace of a request file that is sent again."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.records import Intent
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.resent import ResentTrace, ResentUpload


def upload(started_at: float, anchor_id: str | None = None) -> ResentUpload:
    intent = Intent(
        id=1,
        file_id="20261128T093000-1f2e3d4c/part-00000.jsonl",
        requests=3,
        bytes=512,
        anchor_id=anchor_id,
        anchor_created_at=5.0,
        started_at=started_at,
        last_byte_at=started_at + 1,
        outcome=IntentOutcome.UNRESOLVED,
        watch_until=None,
        seen_before=None,
        latest_created_at=None,
        body_complete=True,
        key_hash=None,
        with_breakpoint=None,
        candidate_id=None,
    )
    return ResentUpload.of(intent, started_at + 100)


@pytest.fixture
def trace(tmp_path: Path) -> ResentTrace:
    return ResentTrace(StoredRequestFile(Storage(str(tmp_path)), ("part-00000.jsonl",)))


def test_an_upload_is_noted_once_however_often_a_process_is_killed_after_it(trace: ResentTrace) -> None:
    assert trace.uploads() == []
    for started_at in (10.0, 10.0, 20.1, 20.1):
        trace.add(upload(started_at, "msgbatch_1"))
    assert trace.uploads() == [upload(10.0, "msgbatch_1"), upload(20.1, "msgbatch_1")]
    assert trace.uploads()[0].columns()["seen_before"] == '["msgbatch_1"]'


def test_a_damaged_trace_is_kept_beside_the_new_one(trace: ResentTrace, tmp_path: Path) -> None:
    (tmp_path / "part-00000.resent.json").write_text('{"uploads": 1}')
    with pytest.raises(DamagedFileError, match=r"part-00000\.resent\.json is damaged"):
        trace.uploads()
    problems: list[str] = []
    assert trace.found(problems) == () and len(problems) == 1
    trace.add(upload(10.0))
    assert trace.uploads() == [upload(10.0)]
    assert (tmp_path / "part-00000.resent.json.damaged").read_text() == '{"uploads": 1}'


def test_a_file_that_replaces_another_has_its_trace(trace: ResentTrace, tmp_path: Path) -> None:
    other = StoredRequestFile(trace.stored.storage, ("part-00001.jsonl",))
    trace.copy_to(other)
    assert not list(tmp_path.iterdir())
    trace.add(upload(10.0))
    trace.copy_to(other)
    assert ResentTrace(other).uploads() == [upload(10.0)]
