"""Files that a user removes by hand, alone and in pairs: nothing is paid for again without a word."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch_assets.cli.status import status
from batch_assets.cli.what_next import waits_for
from batch_assets.core.batches.poll import poll
from batch_assets.core.cancel import cancel
from batch_assets.core.errors import BatchAssetsError, ErrorType, PairingError
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import NeedsUser
from batch_assets.core.remedies import GiveUpAnswers
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.results.examine import examine
from batch_assets.core.results.run import collect_results
from batch_assets.core.settings import Settings
from batch_assets.core.store import answer_index
from batch_assets.dagster.sensors.situation import situation
from batch_assets.emulator import Emulator

from .support import World, environment, texts

ROWS, FILES = 6, 3


def _sent(world: World, pipeline: Pipeline) -> None:
    world.emulator.settings(latency=3600)
    world.send(pipeline)
    world.emulator.end_batches()
    world.emulator.settings(latency=0.0)


def _collected(world: World, pipeline: Pipeline) -> None:
    world.run(pipeline)


def _without_request_files(world: World, pipeline: Pipeline) -> None:
    world.run(pipeline)
    collect_results(world.root, pipeline.name, retention=RetentionConfig(request_files_days=0))


def _without_batches(world: World, pipeline: Pipeline) -> None:
    world.run(pipeline)
    collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0))


def _without_both(world: World, pipeline: Pipeline) -> None:
    world.run(pipeline)
    collect_results(world.root, pipeline.name, retention=RetentionConfig(batches_days=0, request_files_days=0))


_OTHERS = ["index", "receipt", "manifest", "table", "ledger", "root"]
CASES: list[tuple[Callable[[World, Pipeline], None], str]] = [
    *((stage, "response") for stage in (_collected, _without_request_files, _without_batches, _without_both)),
    *((stage, "request") for stage in (_sent, _collected)),
    *((stage, "response+request") for stage in (_collected, _without_batches)),
    *((_sent, f"request+{other}") for other in ("index", "receipt", "ledger")),
    *((_without_request_files, f"response+{other}") for other in ("index", "receipt", "ledger")),
    *((_without_both, f"response+{other}") for other in _OTHERS),
    *((_without_both, other) for other in _OTHERS),
]


class Stages:
    """A root at each stage, which tests copy. The batches at the emulator are those of all copies."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self._emulator, self._folder = emulator, folder
        self._first: dict[str, str] = {}

    def copy(self, stage: Callable[[World, Pipeline], None], target: Path) -> tuple[World, str]:
        """Open a copy of the root at a stage. Return it with the batch id of the first request file."""
        folder = self._folder / stage.__name__
        if stage.__name__ not in self._first:
            folder.mkdir()
            world = self._open(folder / "output", folder)
            pipeline = world.pipeline(texts(ROWS), batching={"max_requests": ROWS // FILES})
            stage(world, pipeline)
            (first,) = world.query("select batch_id from request_file where name = 'part-00000.jsonl'")
            self._first[stage.__name__] = first[0]
            world.root.close()
        shutil.copytree(folder / "output", target)
        return self._open(target, folder), self._first[stage.__name__]

    def _open(self, root: Path, folder: Path) -> World:
        settings = Settings.from_env(environment(self._emulator.url, root, BATCH_ASSETS_TRANSFERS="1"))
        return World(self._emulator, folder, open_root(settings))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("stages")
    with Emulator(state=folder / "emulator") as emulator:
        yield Stages(emulator, folder)


def _pipeline(world: World, rows: int = ROWS) -> Pipeline:
    return world.pipeline(texts(rows), batching={"max_requests": ROWS // FILES})


def _remove(root: Path, kind: str, batch_id: str) -> None:
    paths = {
        "response": root / "asked" / "responses" / f"{batch_id}.parquet",
        "table": root / "asked" / "results" / "results.parquet",
        "ledger": root / "ledger.db",
        "root": root / "root.json",
    }
    names = {
        "request": "part-00000.jsonl",
        "index": "index.parquet",
        "receipt": "part-00000.batch.json",
        "manifest": "manifest.json",
    }
    if kind in names:
        paths[kind] = next((root / "asked" / "requests").iterdir()) / names[kind]
    paths[kind].unlink(missing_ok=True)
    if kind == "ledger":
        for leftover in root.glob("ledger.db-*"):
            leftover.unlink()


@pytest.mark.parametrize(
    ("stage", "removed"), CASES, ids=[f"{stage.__name__.strip('_')}-{removed}" for stage, removed in CASES]
)
def test_nothing_is_paid_again_without_a_word(
    stages: Stages, tmp_path: Path, stage: Callable[[World, Pipeline], None], removed: str
) -> None:
    """Every combination of two files was tried. These are the ones that take different ways."""
    world, batch_id = stages.copy(stage, tmp_path / "output")
    for kind in removed.split("+"):
        _remove(tmp_path / "output", kind, batch_id)
    pipeline = _pipeline(world)
    written, texts_ = [], []
    for step in (world.build, world.collect, world.build):
        try:
            done = step(pipeline)
        except BatchAssetsError as error:
            texts_.append(str(error))
            continue
        if isinstance(done, RequestsReport):
            written.append(done.written)
        else:
            assert done.results is not None
            is_named = done.problems or "ledger" in removed
            assert is_named or dict(done.results.counts) == {"succeeded": ROWS}
    world.root.close()
    assert set(written) <= {0}
    assert written or all("index" in text for text in texts_)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "in the way").touch()


def _dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


_NAMES = {
    "request": "part-00000.jsonl",
    "index": "index.parquet",
    "manifest": "manifest.json",
    "receipt": "part-00000.batch.json",
    "digests": "part-00000.digests",
}


@pytest.mark.parametrize("is_indexed", [False, True], ids=["whole", "indexed"])
@pytest.mark.parametrize("replace", [_folder, _dangling_link, _link_to_itself])
@pytest.mark.parametrize(
    ("stage", "kind"),
    [(_collected, "response"), (_without_batches, "response"), *((_sent, kind) for kind in _NAMES)],
)
def test_what_is_no_file_counts_as_a_lost_one(
    stages: Stages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stage: Callable[[World, Pipeline], None],
    kind: str,
    replace: Callable[[Path], None],
    is_indexed: bool,
) -> None:
    """It is named, the rest goes on, and nothing is paid again."""
    if is_indexed:
        monkeypatch.setattr(answer_index, "_FEW_FILES", 0)
        monkeypatch.setattr(answer_index, "_MORE_FILES", 0)
    world, batch_id = stages.copy(stage, tmp_path / "output")
    folder = next(world.path("asked", "requests").iterdir())
    path = folder / _NAMES[kind] if kind in _NAMES else world.path("asked", "responses", f"{batch_id}.parquet")
    path.unlink()
    replace(path)
    if kind in ("index", "manifest"):
        with pytest.raises(BatchAssetsError, match=rf"{path} is (gone|damaged)"):
            world.collect(_pipeline(world))
    pipeline = _pipeline(world, ROWS + 1)
    assert world.build(pipeline).written == 1
    if kind == "response":
        assert f"{path} is no file" in caplog.text
    if kind == "request":
        world.query("update request_file set checksum = null")  # the digests beside it do not count then
        assert world.build(pipeline).written == 1
        assert f"it is gone ({path})" in caplog.text
    world.submit(pipeline)
    world.emulator.end_batches()
    poll(world.root, now=True)
    done = world.collect(pipeline)
    assert done.results is not None
    is_kept_at_api = stage is not _without_batches
    rows = {"succeeded": ROWS + 1} if is_kept_at_api else {"succeeded": ROWS + 1 - ROWS // FILES, "pending": 2}
    assert dict(done.results.counts) == rows
    assert len(world.accepted_custom_ids()) == 1
    if kind == "response" and is_kept_at_api:
        assert path.is_file()
        assert path.with_name(f"{path.name}.damaged").is_dir() is (replace is _folder)
    world.root.close()


@pytest.mark.parametrize("way", ["gone", "damaged"])
def test_lost_answers_are_named_and_asked_again_only_on_the_user_s_word(
    stages: Stages, tmp_path: Path, way: str
) -> None:
    world, batch_id = stages.copy(_without_both, tmp_path / "output")
    stored = world.path("asked", "responses", f"{batch_id}.parquet")
    kept = stored.read_bytes()
    stored.unlink() if way == "gone" else stored.write_bytes(kept[:50])
    pipeline = _pipeline(world, ROWS + 1)
    assert world.build(pipeline).written == 1  # the new row, and none of the lost ones
    done = world.collect(pipeline)
    assert any(f"the answers of {batch_id} are lost" in problem for problem in done.problems)
    assert GiveUpAnswers(batch_id, "asked") in done.remedies
    world.submit(pipeline)
    world.collect(pipeline)
    table = world.waiting_table(pipeline)
    lost = table[table["error_type"] == ErrorType.ANSWER_LOST]
    assert [*lost["id"]] == ["row-0", "row-1"] and set(lost["result_type"]) == {"pending"}
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}  # users still have the lost answers
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, "asked", "")
        assert submission is not None
        step = next_step(Snapshot.of(tx, submission))
    assert step == NeedsUser(GiveUpAnswers(batch_id, "asked"))
    world.query("update batch set failing_since = failing_since - 900000, next_download_at = 0")
    world.collect(pipeline)
    (wait,) = world.query("select next_download_at - failing_since - 900000 from batch where state = 'ended'")[0]
    assert wait > 80_000, "no run is started every hour in vain"
    accepted = len(world.accepted_custom_ids())
    report = cancel(world.root, batch_id)
    assert report.answers_given_up == [batch_id] and not report.problems
    assert cancel(world.root, batch_id).answers_given_up == []
    world.submit(pipeline, unattended=True)
    assert len(world.accepted_custom_ids()) == accepted
    assert world.build(pipeline).written == 2
    world.submit(pipeline)
    done = world.finish(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": ROWS + 1}
    world.root.close()


def test_all_answers_that_the_api_still_has_are_downloaded_again(stages: Stages, tmp_path: Path) -> None:
    """Although most files of the pipeline are gone: the custom_ids name the requests."""
    world, _ = stages.copy(_without_request_files, tmp_path / "output")
    shutil.rmtree(world.path("asked", "responses"))
    pipeline = _pipeline(world, ROWS + 1)
    assert world.build(pipeline).written == 1
    done = world.collect(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": ROWS, "pending": 1}
    assert world.accepted_custom_ids() == []
    world.root.close()


def test_a_table_whose_answers_are_lost_stays_as_it_is(stages: Stages, tmp_path: Path) -> None:
    world, _ = stages.copy(_without_both, tmp_path / "output")
    shutil.rmtree(world.path("asked", "responses"))
    table = world.path("asked", "results", "results.parquet").read_bytes()
    pipeline = _pipeline(world, ROWS)
    for _ in range(2):
        with pytest.raises(
            PairingError, match=f"the answers of {FILES} of its {FILES} newest batches are missing"
        ):
            world.collect(pipeline)
    assert world.path("asked", "results", "results.parquet").read_bytes() == table
    with pytest.raises(PairingError, match="and the API no longer has these batches"):
        world.build(pipeline)
    assert world.accepted_custom_ids() == []
    world.root.close()


@pytest.mark.parametrize("stage", [_without_request_files, _without_both])
def test_the_file_of_another_batch_is_damaged(
    stages: Stages, tmp_path: Path, stage: Callable[[World, Pipeline], None]
) -> None:
    world, batch_id = stages.copy(stage, tmp_path / "output")
    responses = world.path("asked", "responses")
    other = next(path for path in responses.iterdir() if path.stem != batch_id)
    shutil.copyfile(other, responses / f"{batch_id}.parquet")
    pipeline = _pipeline(world, ROWS)
    assert world.build(pipeline).written == 0
    done = world.collect(pipeline)
    is_lost = stage is _without_both
    assert done.results is not None
    assert dict(done.results.counts) == ({"pending": 2, "succeeded": ROWS - 2} if is_lost else {"succeeded": ROWS})
    assert any(f"the answers of {batch_id} are lost" in problem for problem in done.problems) is is_lost
    world.root.close()


def test_lost_answers_come_back_with_a_backup(stages: Stages, tmp_path: Path) -> None:
    world, batch_id = stages.copy(_without_both, tmp_path / "output")
    stored = world.path("asked", "responses", f"{batch_id}.parquet")
    kept = stored.read_bytes()
    stored.unlink()
    pipeline = _pipeline(world)
    world.build(pipeline)
    world.collect(pipeline)
    stored.write_bytes(kept)
    assert cancel(world.root, batch_id).answers_given_up == []
    done = world.collect(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": ROWS}
    assert not done.problems
    assert world.table(pipeline)["error_type"].isna().all()
    world.root.close()


def test_answers_are_downloaded_again_without_the_request_file(stages: Stages, tmp_path: Path) -> None:
    """The results name the requests. Each row gets its own answer."""
    world, batch_id = stages.copy(_without_request_files, tmp_path / "output")
    pipeline = _pipeline(world)
    before = world.table(pipeline)
    world.path("asked", "responses", f"{batch_id}.parquet").unlink()
    world.build(pipeline)
    done = world.collect(pipeline)
    assert done.results is not None and dict(done.results.counts) == {"succeeded": ROWS}
    columns = ["id", "response_text", "custom_id", "batch_id"]
    assert world.table(pipeline)[columns].equals(before[columns])
    world.root.close()


@pytest.mark.parametrize("way", ["gone", "damaged"])
@pytest.mark.parametrize("first", ["build", "collect"])
def test_the_index_of_lost_answers_is_lost_too(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, first: str
) -> None:
    """Then nothing says what was answered. Nothing is built, and every stage and `status` say the same."""
    world, batch_id = stages.copy(_without_both, tmp_path / "output")
    _remove(tmp_path / "output", "response", batch_id)
    index = next(world.path("asked", "requests").iterdir()) / "index.parquet"
    index.unlink() if way == "gone" else index.write_bytes(index.read_bytes()[:100])
    world.query("update submission set announced_at = final_at")
    pipeline, remedy = _pipeline(world), GiveUpAnswers(batch_id, "asked")
    steps = [world.build, world.collect] if first == "build" else [world.collect, world.build]
    for step in (*steps, lambda pipeline: examine(world.root, pipeline)):
        with pytest.raises(BatchAssetsError) as refused:
            step(pipeline)
        assert refused.value.remedy == remedy
        assert str(index) in str(refused.value) or "or the index.parquet and the manifest.json beside it" in str(
            refused.value
        )
        world.query("update batch set next_download_at = next_download_at + 3600")
        with world.root.ledger.read() as tx:
            submission = submissions.newest(tx, "asked", "")
            assert submission is not None and submission.final_at is not None
            snapshot = Snapshot.of(tx, submission)
        assert next_step(snapshot) == NeedsUser(remedy)
        assert waits_for(snapshot).startswith(f"you: restore the files of {batch_id}, or give its answers up")
        (sentence,) = situation([snapshot], {})
        assert sentence.startswith(f"the answers of {batch_id} are lost")
    monkeypatch.setenv("BATCH_ASSETS_ROOT", world.root.settings.root)
    shown = CliRunner().invoke(status, ["asked"]).output
    assert f"`batch-assets cancel {batch_id}` gives them up" in shown
    assert "Newer answers" not in shown
    cancel(world.root, batch_id)
    assert world.build(pipeline).written == 2
    world.root.close()


def test_a_rebuilt_ledger_gives_lost_answers_up_too(stages: Stages, tmp_path: Path) -> None:
    """It takes the batch for one that was never collected, and the API no longer has it."""
    world, batch_id = stages.copy(_without_both, tmp_path / "output")
    world.root.close()
    for kind in ("response", "ledger"):
        _remove(tmp_path / "output", kind, batch_id)
    pipeline = _pipeline(world)
    assert world.build(pipeline).written == 0
    world.collect(pipeline)
    world.query("update batch set missing_since = missing_since - 2000 where missing_since is not null")
    world.query(
        "update batch set created_at = created_at - 3000000, expires_at = null where id = :id", id=batch_id
    )
    world.collect(pipeline)
    done = world.collect(pipeline)
    assert GiveUpAnswers(batch_id, "asked") in done.remedies
    assert cancel(world.root, batch_id).answers_given_up == [batch_id]
    assert world.build(pipeline).written == 2
    world.root.close()


def test_files_whose_absence_was_accepted_are_not_missed(stages: Stages, tmp_path: Path) -> None:
    world, batch_id = stages.copy(_without_both, tmp_path / "output")
    world.path("asked", "responses", f"{batch_id}.parquet").unlink()
    world.query("update pairing set files_from = (select max(created_at) + 1 from submission)")
    assert world.build(_pipeline(world)).written == 2
    world.root.close()


def test_status_says_that_a_table_is_missing_and_a_run_writes_it_again(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    table = Path(world.root.settings.root, "asked", "results", "results.parquet")
    variables = {"BATCH_ASSETS_ROOT": world.root.settings.root, "BATCH_ASSETS_EMULATOR": world.emulator.url}

    def errors() -> list[str]:
        shown = CliRunner().invoke(status, ["asked"], env=variables)
        assert shown.exit_code == 0, shown.output
        return [line for line in shown.output.splitlines() if line.startswith("  error")]

    assert errors() == []
    table.unlink()
    assert errors() == [
        f"  error       there is no table {table}: if it was removed, the next run writes it again"
    ]
    world.run(pipeline)
    assert errors() == [] and table.is_file() and len(world.accepted()) == 1
