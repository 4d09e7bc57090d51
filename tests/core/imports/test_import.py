"""Answers from batches that were made elsewhere: stored as if they were ours, and never asked for again."""

from __future__ import annotations

import csv
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.erase.run import erase
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.imports.report import ImportFailedError, ImportReport, LeftOut, MatchedBy
from batch_assets.core.imports.run import import_answers
from batch_assets.core.ledger import spend
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import build_spend
from batch_assets.core.store import answer_index
from tests.forked import ForkServer

from ..support import BATCHES, World, environment, make_pipeline, texts

RIGHT = {
    "model": "claude-haiku-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "the text of row 0"}],
}


def call(world: World, method: str, path: str, body: Any = None) -> bytes:
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(world.emulator.url + path, data, headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return bytes(response.read())


def asked(text: str, **more: Any) -> dict[str, Any]:
    """The params that the pipeline of `world` has for a text, with its keys in another order."""
    return {"messages": [{"content": text, "role": "user"}], "max_tokens": 100, "model": RIGHT["model"], **more}


def made_elsewhere(world: World, requests: Mapping[str, dict[str, Any]]) -> str:
    """Create a batch without this project, and wait until it has ended."""
    body = {"requests": [{"custom_id": id_, "params": each} for id_, each in requests.items()]}
    batch_id = str(json.loads(call(world, "POST", BATCHES, body))["id"])
    end = time.monotonic() + 60
    while json.loads(call(world, "GET", f"{BATCHES}/{batch_id}"))["processing_status"] != "ended":
        assert time.monotonic() < end
    return batch_id


def results_of(world: World, batch_id: str, name: str = "results.jsonl") -> Path:
    path = world.folder / name
    path.write_bytes(call(world, "GET", f"{BATCHES}/{batch_id}/results"))
    return path


def requests_file(world: World, requests: Mapping[str, dict[str, Any]]) -> Path:
    path = world.folder / "requests.jsonl"
    lines = [json.dumps({"custom_id": id_, "params": each}) for id_, each in requests.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(world: World, pipeline: Pipeline, source: Any, **more: Any) -> ImportReport:
    return import_answers(world.root, pipeline, "", str(source), **more)


def elsewhere(count: int) -> dict[str, dict[str, Any]]:
    return {f"row-{number}": asked(f"the text of row {number}") for number in range(count)}


def test_a_batch_with_its_requests_is_matched_by_params_and_only_the_rest_is_sent(world: World) -> None:
    requests = elsewhere(3) | {"row-3": asked("another question")}
    batch_id = made_elsewhere(world, requests)
    pipeline = world.pipeline(texts(5))
    report = imported(world, pipeline, batch_id, requests=requests_file(world, requests))
    assert (report.lines, report.rows, report.imported) == (4, 5, {MatchedBy.PARAMS: 3})
    assert report.examples == {LeftOut.OTHER_PARAMS: ["row-3"]}
    assert world.build(pipeline).written == 2
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert table["batch_id"].tolist()[:3] == [batch_id] * 3
    assert (table["result_type"] == "succeeded").all()
    assert [batch["requests"] for batch in world.accepted()] == [4, 2]
    prices = table["cost_usd"].head(3).sum()
    assert report.picodollars / 1e12 == pytest.approx(prices)
    with world.root.ledger.read() as tx:
        (own,) = spend.not_logged(tx, "asked", [""])
    assert own.cost is not None
    assert own.cost.picodollars / 1e12 == pytest.approx(table["cost_usd"].tail(2).sum())
    (spent,) = build_spend(world.root).rows
    assert (spent.amounts["answers"], spent.amounts["cost_usd"]) == (2, own.cost.picodollars)


def test_importing_again_changes_nothing(world: World) -> None:
    requests = elsewhere(3)
    pipeline = world.pipeline(texts(3))
    file = results_of(world, made_elsewhere(world, requests))
    imported(world, pipeline, file, requests=requests_file(world, requests))
    before = {path.name: path.read_bytes() for path in world.path("asked", "responses").iterdir()}
    batches = world.query("select * from batch")
    again = imported(world, pipeline, file, requests=requests_file(world, requests))
    assert (again.answers, again.left_out) == (0, {LeftOut.ANSWERED: 3})
    assert {path.name: path.read_bytes() for path in world.path("asked", "responses").iterdir()} == before
    assert world.query("select * from batch") == batches
    assert world.build(pipeline).written == 0


def test_a_row_key_alone_proves_nothing_unless_the_user_vouches_for_it(world: World) -> None:
    requests = {**elsewhere(2), "row-2": asked("x", model="claude-opus-5"), "elsewhere": asked("y")}
    file = results_of(world, made_elsewhere(world, requests), "msgbatch_0123456789abcdef_results.jsonl")
    pipeline = world.pipeline(texts(3))
    report = imported(world, pipeline, file)
    assert (report.answers, report.left_out) == (0, {LeftOut.KEY_ONLY: 3, LeftOut.UNKNOWN: 1})
    assert world.build(pipeline).written == 3
    report = imported(world, pipeline, file, by_key=True, left_out=world.folder / "left.csv")
    assert report.imported == {MatchedBy.KEY: 2}
    with (world.folder / "left.csv").open(newline="") as listing:
        left = {row["custom_id"]: row["reason"] for row in csv.DictReader(listing)}
    assert left == {"row-2": LeftOut.OTHER_MODEL, "elsewhere": LeftOut.UNKNOWN}
    assert world.build(pipeline).written == 1
    world.submit(pipeline)
    world.finish(pipeline)
    assert world.table(pipeline)["batch_id"].tolist()[:2] == ["msgbatch_0123456789abcdef"] * 2


def test_a_row_key_is_not_trusted_where_the_requests_show_another_question(world: World) -> None:
    requests = {"row-0": asked("another question"), "row-1": asked("the text of row 1")}
    file = results_of(world, made_elsewhere(world, requests))
    report = imported(world, world.pipeline(texts(2)), file, requests=requests_file(world, requests), by_key=True)
    assert (report.imported, report.left_out) == ({MatchedBy.PARAMS: 1}, {LeftOut.OTHER_PARAMS: 1})


def test_the_results_of_another_root_need_no_requests(new_world: Callable[..., World]) -> None:
    other = new_world(name="other")
    pipeline = other.pipeline(texts(4))
    other.run(pipeline)
    (batch,) = other.accepted()
    world = new_world(name="own")
    report = imported(world, world.pipeline(texts(6)), results_of(world, batch["id"]))
    assert report.imported == {MatchedBy.DIGEST: 4}
    assert world.build(world.pipeline()).written == 2
    with pytest.raises(ImportFailedError, match="was sent by this root"):
        imported(other, pipeline, batch["id"])


def test_lines_without_an_answer_and_lines_that_are_there_twice_are_left_out(world: World) -> None:
    requests = {**elsewhere(4), "copy": asked("the text of row 0"), "bad": asked("the text of row 4", stream=True)}
    lines = results_of(world, made_elsewhere(world, requests)).read_text().splitlines()
    twice = next(line for line in lines if '"row-3"' in line)
    (world.folder / "odd.jsonl").write_text("\n".join([*lines, twice, "no json", '{"custom_id": 3}']))
    report = imported(
        world, world.pipeline(texts(5)), world.folder / "odd.jsonl", requests=requests_file(world, requests)
    )
    assert report.imported == {MatchedBy.PARAMS: 3}
    assert report.left_out == {LeftOut.UNREADABLE: 2, LeftOut.NO_ANSWER: 1, LeftOut.REPEATED: 3}


def test_headers_are_part_of_what_was_asked(world: World) -> None:
    requests = elsewhere(1)
    pipeline = world.pipeline(texts(1), betas=["output-300k-2026-03-24"])
    file = results_of(world, made_elsewhere(world, requests))
    report = imported(world, pipeline, file, requests=requests_file(world, requests))
    assert report.left_out == {LeftOut.HEADERS: 1}


def test_sources_that_cannot_be_used(world: World) -> None:
    pipeline = world.pipeline(texts(1))
    with pytest.raises(ImportFailedError, match="no such file"):
        imported(world, pipeline, "results.txt")
    with pytest.raises(ImportFailedError, match="msgbatch_0000000000"):
        imported(world, pipeline, "msgbatch_0000000000")
    file = requests_file(world, {"a": asked("x"), "b": asked("y")})
    file.write_text(file.read_text().replace('"b"', '"a"'))
    with pytest.raises(ImportFailedError, match="line 2: its custom_id is there before"):
        imported(world, pipeline, file, requests=file)
    world.emulator.settings(latency=3600)
    body = {"requests": [{"custom_id": "row-0", "params": asked("the text of row 0")}]}
    open_id = json.loads(call(world, "POST", BATCHES, body))["id"]
    with pytest.raises(ImportFailedError, match="has not ended"):
        imported(world, pipeline, open_id)
    keyless = world.pipeline(dataset={"path": "rows.jsonl"})
    with pytest.raises(ImportFailedError, match="no key of their own"):
        imported(world, keyless, file, by_key=True)


def test_a_lost_ledger_finds_imported_answers_and_still_looks_for_what_was_sent(world: World) -> None:
    """A file in doubt has a request that was imported. Its batch is still looked for."""
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    file = results_of(world, made_elsewhere(world, elsewhere(1)))
    assert imported(world, pipeline, file, by_key=True).answers == 1
    world.root.close()
    for lost in [*world.path().glob("ledger.db*"), *world.path().rglob("*.batch.json")]:
        lost.unlink()
    world.reopened(BATCH_ASSETS_RECONCILE_GRACE="0")
    assert world.states(pipeline) == ["unresolved"]
    world.submit(pipeline)
    assert world.states(pipeline) == ["submitted"]
    world.finish(pipeline)
    assert [batch["requests"] for batch in world.accepted()] == [3, 1]
    assert world.query("select count(*) from batch where id like 'imported.%' and file_id is null") == [(1,)]
    assert world.build(pipeline).written == 0


def test_a_process_with_an_index_of_a_long_history_sees_what_another_one_imports(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_index, "_FEW_FILES", 0)
    monkeypatch.setattr(answer_index, "_MORE_FILES", 0)
    world.run(world.pipeline(texts(2, "old")))
    pipeline = world.pipeline(texts(3))
    assert world.build(pipeline).written == 3
    assert world.query("select count(*) from indexed_file where name like 'msgbatch%'") == [(1,)]
    file = results_of(world, made_elsewhere(world, elsewhere(2)))
    env = environment(world.emulator.url, world.root.settings.root, world.root.settings.ledger_url)
    with open_root(Settings.from_env(env)) as other:
        assert import_answers(other, pipeline, "", str(file), by_key=True).answers == 2
    assert world.build(pipeline).written == 1


def test_a_damaged_file_of_imported_answers_stops_a_build_and_says_what_to_do(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    file = results_of(world, made_elsewhere(world, elsewhere(2)))
    imported(world, pipeline, file, by_key=True)
    (stored,) = world.path("asked", "responses").iterdir()
    stored.write_bytes(stored.read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match=r"imported\..*or move it away and import its answers again"):
        world.build(pipeline)
    stored.rename(world.folder / "away.parquet")
    assert imported(world, pipeline, file, by_key=True).answers == 2
    assert world.build(pipeline).written == 0


def test_an_imported_answer_is_erased_with_its_row(world: World) -> None:
    pipeline = world.pipeline({"row-0": "the text of row 0", "row-1": "the text of row 1"})
    file = results_of(world, made_elsewhere(world, elsewhere(2)))
    imported(world, pipeline, file, by_key=True)
    table = world.run(pipeline).set_index("id")
    assert erase(world.root, "asked", ["row-0"], pipeline).is_complete
    answer = table.loc["row-0", "response_text"].encode()
    left = [path for path in world.path().rglob("*.parquet") if answer in path.read_bytes()]
    assert left == []
    assert imported(world, pipeline, file, by_key=True).answers == 0


@pytest.fixture(scope="module")
def children() -> Iterator[ForkServer]:
    with ForkServer(__name__) as server:
        yield server


def import_file(env: dict[str, str], folder: str, file: str) -> None:
    """Import a file in a process of its own."""
    with open_root(Settings.from_env(env)) as root:
        pipeline = make_pipeline(Path(folder), {"path": "rows.jsonl", "key": "id"})
        import_answers(root, pipeline, "", file, by_key=True)


@pytest.mark.parametrize("at", range(1, 60, 6))
def test_killed_at_any_boundary_and_run_again(world: World, children: ForkServer, at: int) -> None:
    pipeline = world.pipeline(texts(3))
    file = results_of(world, made_elsewhere(world, elsewhere(2)))
    env = environment(world.emulator.url, world.root.settings.root, world.root.settings.ledger_url)
    given = {"env": env, "folder": str(world.folder), "file": str(file)}
    (outcome,) = children.run((f"{__name__}:import_file", given), die_at=at)
    assert outcome.error == "", outcome.error
    world.query("update lease set until = 0")
    stored = list(world.path("asked", "responses").glob("[!.]*"))
    assert len(stored) in (0, 1)
    report = imported(world, pipeline, file, by_key=True)
    assert report.answers == (0 if stored else 2)
    assert len(world.query("select id from batch where pipeline = 'asked'")) == 1
    assert [path.suffix for path in world.path("asked", "responses").iterdir()] == [".parquet"]
    assert world.build(pipeline).written == 1


def test_an_imported_answer_stands_although_it_was_cut_off(world: World) -> None:
    """No request file has what was asked. An answer of the pipeline's own is asked again beside it."""
    cut_off = RIGHT | {"max_tokens": 10}
    requests = {"row-0": cut_off}
    batch_id = made_elsewhere(world, requests)
    attributes = {"params": cut_off | {"messages": [{"role": "user", "content": "{{ text }}"}]}}
    pipeline = world.pipeline(texts(2), **attributes, retry={"truncated": {"times": 1}})
    report = imported(world, pipeline, results_of(world, batch_id), requests=requests_file(world, requests))
    assert report.imported == {MatchedBy.PARAMS: 1}
    world.send(pipeline)
    results = world.collect(pipeline).results
    assert results is not None and results.ask_again == 1
    again = world.submit(pipeline)
    assert (again.planned_again, again.waiting) == (1, {})
    world.finish(pipeline)
    table = world.table(pipeline)
    assert [*zip(table["attempts"], table["stop_reason"], strict=True)] == [(1, "max_tokens"), (2, "max_tokens")]
    assert [batch["requests"] for batch in world.accepted()] == [1, 1, 1]
