"""Betas that depend on the row: requests with different headers go to different batches."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.header_sets import MAX_HEADER_SETS
from batch_assets.core.store.digests import custom_ids, digester, pack
from batch_assets.core.template.betas import Betas
from batch_assets.core.template.template_limits import LimitedEnvironment
from batch_assets.core.template.values import RowRejectedError
from tests.forked import ForkServer

from ..support import CREATE, World, environment, params, texts, wait_for

BETA = "output-300k-2026-03-24"
BETAS = ["{{ '" + BETA + "' if 'long' in text else none }}"]
ROWS = {**texts(3, "long"), **texts(4, "short")}
POST = "POST /v1/messages/batches"
_SUBMIT = """
from batch_assets.core.open_root import open_root
from batch_assets.core.root import Root
from batch_assets.core.batches.submit import submit_batches
submit_batches(open_root(), "asked")
"""


def make_pipeline(world: World, rows: dict[str, str] | None = None, **attributes: Any) -> Pipeline:
    """A pipeline whose betas depend on the row."""
    return world.pipeline(ROWS if rows is None else rows, betas=BETAS, **attributes)


def sent(world: World) -> list[tuple[str, int]]:
    """(header, number of requests) of every batch, sorted by header."""
    return sorted((batch["betas"], batch["requests"]) for batch in world.accepted())


def check(world: World, pipeline: Pipeline, times: int = 1) -> None:
    """Check that every row has an answer, and that its request was sent `times` times, with its own header."""
    table = world.table(pipeline).set_index("id")
    assert dict(table["result_type"]) == dict.fromkeys(ROWS, "succeeded")
    assert Counter(world.accepted_custom_ids()) == dict.fromkeys(table["custom_id"], times)
    for batch in world.accepted(custom_ids=True):
        words = {custom_id.partition("-")[0] for custom_id in batch["custom_ids"]}
        assert words == {"long" if batch["betas"] == BETA else "short"}
        assert batch["betas"] in ("", BETA)


def check_rerun(world: World, pipeline: Pipeline) -> None:
    """Check that a rerun sends nothing."""
    world.forget_calls()
    assert world.build(pipeline).written == 0
    world.submit(pipeline)
    world.finish(pipeline)
    assert world.calls()[POST] == 0


def lose_ledger(world: World) -> None:
    """Delete the ledger, so that the next use has only the root."""
    world.root.close()
    for path in Path(world.root.settings.ledger_url.removeprefix("sqlite:///")).parent.glob("ledger.db*"):
        path.unlink()
    world.reopened()


def test_two_header_sets_are_two_batches_and_a_rerun_sends_nothing(world: World) -> None:
    pipeline = make_pipeline(world)
    world.run(pipeline)
    assert sent(world) == [("", 4), (BETA, 3)]
    check(world, pipeline)
    check_rerun(world, pipeline)


def test_equal_params_with_other_headers_are_other_requests(world: World) -> None:
    rows = [{"id": key, "text": "the same", "more": key != "b"} for key in "abc"]
    (world.folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pipeline = world.pipeline(betas=["{{ 'one' if more else 'two' }}", "three"])
    table = world.run(pipeline).set_index("id")
    assert sent(world) == [("one,three", 1), ("two,three", 1)]
    assert table["custom_id"]["a"] == table["custom_id"]["c"]
    assert table["shared_with"]["c"] == "a"
    body = orjson.dumps(params("the same"))
    for key, header in (("a", "one,three"), ("b", "two,three")):
        assert table["custom_id"][key] == custom_id_of(header, body, key, world.root.mark)


def custom_id_of(header: str, body: bytes, key: str, mark: str) -> str:
    """The custom_id of a request with these params."""
    hash_ = digester({"anthropic-beta": header})
    hash_.update(body)
    return custom_ids([key], pack([hash_.digest()]), mark)[0].decode()


def test_a_column_hides_the_function_of_the_same_name(world: World) -> None:
    (world.folder / "rows.jsonl").write_text('{"id": "a", "text": "hello", "dict": "one"}\n')
    world.send(world.pipeline(betas=["{{ dict }}"]))
    assert sent(world) == [("one", 1)]


def test_constant_betas_keep_the_digest_of_earlier_versions(world: World) -> None:
    """A different digest would send all rows of an existing root again."""
    pipeline = world.pipeline({"a": "hello"}, betas=["two", "one", "two"])
    report = world.build(pipeline)
    manifest = json.loads((world.submission_folder(pipeline, report) / "manifest.json").read_text())
    assert manifest["headers"] == {"anthropic-beta": "two,one,two"}
    assert not {"betas", "header_sets"} & manifest.keys()
    assert list(manifest["files"][0]) == ["name", "requests", "bytes", "attempt", "checksum"]
    assert world.query("select headers from request_file") == [(None,)]
    world.submit(pipeline)
    assert sent(world) == [("two,one,two", 1)]
    assert world.accepted_custom_ids() == [
        custom_id_of("two,one,two", orjson.dumps(params("hello")), "a", world.root.mark)
    ]


def test_a_row_with_the_betas_that_all_rows_had_before_keeps_its_answer(world: World) -> None:
    rows = texts(2, "long")
    world.run(world.pipeline(rows, betas=[BETA]))
    report = world.build(make_pipeline(world, rows))
    assert (report.written, report.reused) == (0, 2)
    world.run(make_pipeline(world))
    assert sent(world) == [("", 4), (BETA, 1), (BETA, 2)]


@pytest.mark.parametrize("built_again", [False, True])
def test_a_retried_request_keeps_its_headers(world: World, built_again: bool) -> None:
    """No matter which submission wrote the file that the request is copied from."""
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 1.0, "first": 1}}}])
    pipeline = make_pipeline(world)
    world.send(pipeline)
    if built_again:
        assert world.build(pipeline).in_flight == 7
    world.finish(pipeline)
    assert sent(world) == [("", 4), ("", 4), (BETA, 3), (BETA, 3)]
    check(world, pipeline, times=2)


def test_the_halves_of_a_file_that_is_too_large_keep_its_headers(world: World) -> None:
    world.emulator.settings(max_body_bytes=400)
    pipeline = make_pipeline(world)
    world.run(pipeline)
    assert len(world.accepted()) > 2
    check(world, pipeline)


def test_a_rebuilt_ledger_knows_the_headers_of_files_that_were_not_sent(world: World) -> None:
    pipeline = make_pipeline(world, batching={"max_requests": 2})
    world.build(pipeline)
    lose_ledger(world)
    world.submit(pipeline)
    world.finish(pipeline)
    assert sent(world) == [("", 2), ("", 2), (BETA, 1), (BETA, 2)]
    check(world, pipeline)
    check_rerun(world, pipeline)


def test_a_rebuilt_ledger_knows_the_headers_of_files_that_no_manifest_lists(world: World) -> None:
    """These are copies of requests that another submission sent, and halves of files."""
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"overloaded_error": 1.0, "first": 1}}}])
    pipeline = make_pipeline(world)
    world.send(pipeline)
    assert world.build(pipeline).in_flight == 7
    world.collect(pipeline)
    assert sorted(batch["requests"] for batch in world.accepted()) == [3, 4]
    too_large = {"match": {**CREATE, "nth": 1}, "action": {"status": 413}}
    full = {"match": {**CREATE, "after": 1}, "action": {"status": 429, "headers": {"retry-after": "0"}}}
    world.emulator.faults([too_large, full])
    report = world.submit(pipeline)
    assert (report.planned_again, report.submitted) == (7, [])
    assert Counter(world.states(pipeline))["ready"] == 3
    lose_ledger(world)
    world.emulator.reset_faults()
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == 5
    check(world, pipeline, times=2)


def test_a_rebuilt_ledger_refuses_a_file_whose_headers_are_not_in_the_manifest(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = make_pipeline(world)
    path = world.submission_folder(pipeline, world.build(pipeline)) / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["header_sets"] == [{"anthropic-beta": BETA}, {}]
    path.write_text(json.dumps({**manifest, "header_sets": [{"anthropic-beta": "another"}, {}]}))
    lose_ledger(world)
    refused = world.submit(pipeline).refused
    assert [why for file, why in refused.items() if file.endswith("part-00000.jsonl")] == [
        "the request file is damaged, line 1 is not what was written: its requests have to be built again"
    ]
    assert BETA not in str(sent(world))
    path.write_text(json.dumps({**manifest, "header_sets": [BETA]}))
    lose_ledger(world)
    with caplog.at_level("WARNING"), world.root.ledger.read():
        pass
    assert "'header_sets.0' is str" in caplog.text


def test_a_kill_between_two_header_sets_sends_nothing_twice(world: World, python: ForkServer) -> None:
    pipeline = make_pipeline(world)
    world.build(pipeline)
    world.emulator.faults([{"match": {"method": "POST", "nth": 2}, "action": {"delay": 3600}}])
    settings = world.root.settings
    one_transfer = {"BATCH_ASSETS_LEASE_SECONDS": "1", "BATCH_ASSETS_TRANSFERS": "1"}
    env = environment(world.emulator.url, settings.root, settings.ledger_url, **one_transfer)
    child = python.start("-c", _SUBMIT, env=os.environ | env)
    try:
        states = "select state from request_file order by id"
        wait_for(lambda: world.query(states) == [("submitted",), ("sending",)], "the second intent")
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.communicate()
    world.emulator.reset_faults()
    world.finish(pipeline)
    check(world, pipeline)
    check_rerun(world, pipeline)


def test_a_row_that_needs_one_header_set_too_many_is_rejected(world: World) -> None:
    rows = {f"{number:02d}": f"beta-{number % 18}" for number in range(20)}
    pipeline = world.pipeline(rows, betas=["{{ text }}"])
    report = world.build(pipeline)
    assert (report.requests, report.rejected, len(report.files)) == (MAX_HEADER_SETS, 2, MAX_HEADER_SETS)
    world.submit(pipeline)
    world.finish(pipeline)
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 16 + ["rejected"] * 2 + ["succeeded"] * 2
    assert table["error_type"][16] == "template_error"
    assert "needs beta-16, and earlier rows need 16 other combinations" in table["error_message"][16]


@pytest.mark.parametrize(
    ("entries", "row", "header"),
    [
        (["{{ a }}", "b"], {"a": "a"}, "a,b"),
        (["b", "{{ a }}", "c"], {"a": "b"}, "b,c"),
        (["{{ a }}", "b"], {"a": None}, "b"),
        (["{{ a }}"], {"a": ""}, None),
        (["{{ a }}"], {"a": None}, None),
        (["{{ a }}"], {"a": []}, None),
        (["{{ a }}", "b"], {"a": ["x", None, "y", "x"]}, "x,y,b"),
        (["{{ a }}"], {"a": " y, x,y "}, "y,x"),
        (["x-{{ a }}"], {"a": "2026"}, "x-2026"),
        (["{% if a %}\n  x\n{% endif %}"], {"a": True}, "x"),
        (["{% if a %}\n  x\n{% endif %}"], {"a": False}, None),
    ],
)
def test_the_header_of_a_row(tmp_path: Path, entries: list[str], row: dict[str, Any], header: str | None) -> None:
    betas = Betas(entries, tmp_path, "defs.yaml")
    assert (betas.by_row, betas.constant, betas.of(row)) == (True, None, header)


@pytest.mark.parametrize(
    ("entry", "value", "problem"),
    [
        ("{{ a }}", 3, "betas: 3 is not text"),
        ("{{ a }}", "two words", "'two words' is not the name of a beta feature"),
        ("{{ a }}", "x\r\nx-api-key: y", "is not the name"),
        ("{{ 'x' if a }}", False, "no else section"),
    ],
)
def test_a_row_with_an_invalid_header_is_rejected(tmp_path: Path, entry: str, value: Any, problem: str) -> None:
    with pytest.raises(RowRejectedError) as caught:
        Betas([entry], tmp_path, "defs.yaml").of({"a": value})
    assert caught.value.error_type == "template_error"
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("entries", "header"),
    [([], None), (["a"], "a"), (["a", "a"], "a,a"), (["{{ 'a' }}", "{{ none }}"], "a"), (["{{ none }}"], None)],
)
def test_betas_that_are_the_same_for_every_row(tmp_path: Path, entries: list[str], header: str | None) -> None:
    betas = Betas(entries, tmp_path, "defs.yaml")
    assert (betas.by_row, betas.constant) == (False, header)


@pytest.mark.parametrize(
    ("entry", "field", "problem"),
    [
        ("{{ oops", "betas[0]", "end of"),
        ("two words", "betas", "is not the name"),
        ("{{ 3 }}", "betas", "3 is not text"),
    ],
)
def test_a_mistake_in_betas_is_reported_at_load(world: World, entry: str, field: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        world.pipeline(ROWS, betas=[entry])
    assert (caught.value.field, problem in caught.value.problem) == (field, True)


def test_a_column_that_only_betas_read_must_exist(world: World) -> None:
    with pytest.raises(
        ConfigError, match=r"betas\[1\].*reads 'lang', which is not a column of .*its columns: id, text"
    ):
        world.build(world.pipeline(ROWS, betas=["a", "{{ lang }}"]))
    (world.folder / "rows.jsonl").write_text("")
    assert world.build(world.pipeline(betas=["a", "{{ lang }}"])).rows == 0


def test_only_templates_make_an_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = LimitedEnvironment.__init__

    def count(self: LimitedEnvironment, **options: Any) -> None:
        made.append(self)
        make(self, **options)

    monkeypatch.setattr(LimitedEnvironment, "__init__", count)
    without = world.pipeline(ROWS)
    assert (without.template.columns, without.betas.columns) == ({"text"}, set())
    assert len(made) == 1
    with_betas = make_pipeline(world)
    assert (with_betas.template.columns, with_betas.betas.columns) == ({"text"}, {"text"})
    assert len(made) == 3
