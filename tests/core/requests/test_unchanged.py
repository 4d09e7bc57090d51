"""A build of a dataset that is as it was reads no row, and a join of the same answers writes no table."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.erase.run import erase
from batch_assets.core.pipeline.hooks import Params, Row
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.requests import unchanged
from batch_assets.core.requests.report import RequestsReport

from ..support import CREATE, World, calling, params, texts, write_rows

SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "additionalProperties": False}


@pytest.fixture(autouse=True)
def _settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts as settled as soon as it is written, so that no test has to wait for it."""
    monkeypatch.setattr(unchanged, "_SETTLED_SECONDS", 0.0)


class Reads:
    """Counts the datasets that are opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        opened = Dataset.__init__

        def counting(dataset: Dataset, *args: Any, **more: Any) -> None:
            self.count += 1
            opened(dataset, *args, **more)

        monkeypatch.setattr(Dataset, "__init__", counting)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def settled(world: World, pipeline: Pipeline, partition: str = "") -> RequestsReport:
    """Run all stages, and return the report of the build."""
    report = world.build(pipeline, partition)
    world.submit(pipeline, partition)
    world.finish(pipeline, partition)
    return report


def test_an_unchanged_dataset_is_not_read(world: World, reads: Reads) -> None:
    pipeline = world.pipeline(texts(3))
    first = settled(world, pipeline)
    opened = reads.count

    again = world.build(pipeline)

    assert reads.count == opened
    assert again.is_unchanged
    assert (again.submission_id, again.rows, again.requests) == (first.submission_id, 3, 3)
    assert (again.written, again.reused, again.in_flight, again.files) == (0, 3, 0, [])
    assert not world.submit(pipeline).submitted
    assert world.collect(pipeline).results.final  # type: ignore[union-attr]
    assert len(world.accepted_custom_ids()) == 3


def test_a_key_of_another_kind_is_noticed(world: World) -> None:
    settled(world, world.pipeline(texts(3), params=calling({True: 1})))

    assert world.build(world.pipeline(params=calling({"true": 1}))).written == 3


def test_a_prompt_file_that_did_not_exist_before_is_noticed(world: World) -> None:
    template = params("{% include id ~ '.txt' ignore missing %}{{ text }}")
    settled(world, world.pipeline(texts(3), params=template))
    (world.folder / "row-1.txt").write_text("a new file ")

    report = world.build(world.pipeline(params=template))

    assert (report.is_unchanged, report.written) == (False, 1)


def _row_added(world: World) -> None:
    write_rows(world.folder / "rows.jsonl", texts(4))


def _text_changed_in_place(world: World) -> None:
    """The same size, and the same time of the last change."""
    path = world.folder / "rows.jsonl"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"text of row 1", b"TEXT of row 1"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(world: World) -> None:
    """Another file of the same size and time takes the name."""
    path = world.folder / "rows.jsonl"
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes().replace(b"text of row 1", b"TEXT of row 1"))
    shutil.copystat(path, other)
    other.replace(path)


@pytest.mark.parametrize("change", [_row_added, _text_changed_in_place, _replaced])
def test_a_changed_dataset_is_read(world: World, change: Callable[[World], None]) -> None:
    pipeline = world.pipeline(texts(3))
    settled(world, pipeline)

    change(world)

    report = world.build(pipeline)
    assert not report.is_unchanged
    assert report.written == 1


@pytest.mark.parametrize(
    "attributes",
    [
        {"params": params("{{ text }}!")},
        {"dataset": {"path": "rows.jsonl", "key": "id", "columns": []}},
        {"output_schema": SCHEMA},
        {"retry": {"max_attempts": 2}},
        {"batching": {"max_mb": 1}},
        {"anthropic_version": "2023-06-01"},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_a_changed_pipeline_reads_the_dataset(world: World, attributes: dict[str, Any]) -> None:
    first = settled(world, world.pipeline(texts(3)))

    report = world.build(world.pipeline(**attributes))

    assert not report.is_unchanged
    assert report.submission_id != first.submission_id


def test_fields_that_no_request_depends_on_may_change(world: World) -> None:
    settled(world, world.pipeline(texts(3)))

    assert world.build(world.pipeline(max_failed=0.5, schedule="0 2 * * *")).is_unchanged
    money = {"budget": {"max_usd": 5, "per": "day"}, "confirm_above": 1, "cost_center": "sales", "pilot": 2}
    assert world.build(world.pipeline(**money)).is_unchanged


def test_a_changed_prompt_file_reads_the_dataset(world: World) -> None:
    (world.folder / "prompt.txt").write_text("Sum up: {{ text }}")
    attributes = {"params": params("{% include 'prompt.txt' %}")}
    settled(world, world.pipeline(texts(3), **attributes))
    assert world.build(world.pipeline(**attributes)).is_unchanged

    (world.folder / "prompt.txt").write_text("Translate: {{ text }}")

    assert world.build(world.pipeline(**attributes)).written == 3


def test_files_that_rows_name_are_always_read(world: World) -> None:
    (world.folder / "a.txt").write_text("one")
    attributes = {
        "params": params([{"type": "text", "text": "{{ text | file_base64 }}"}]),
        "dataset": {"path": "rows.jsonl", "key": "id"},
    }
    write_rows(world.folder / "rows.jsonl", {"a": "a.txt"})
    settled(world, world.pipeline(**attributes))

    (world.folder / "a.txt").write_text("two")

    assert world.build(world.pipeline(**attributes)).written == 1


def test_a_file_that_a_row_loads_is_always_read(world: World) -> None:
    for name in ("a.json", "b.json"):
        (world.folder / name).write_text(f'{{"word": "{name}"}}')
    attributes = {"params": params("{{ load(text).word }}")}
    settled(world, world.pipeline({"1": "a.json", "2": "b.json"}, **attributes))

    (world.folder / "b.json").write_text('{"word": "changed"}')

    assert world.build(world.pipeline(**attributes)).written == 1


def test_own_code_is_always_asked(world: World) -> None:
    words = ["one"]

    def add_word(pipeline: Pipeline, row: Row, rendered: Params) -> Params:
        return rendered | {"system": words[0]}

    pipeline = world.pipeline(texts(2), hooks=Hooks(render_request=add_word))
    settled(world, pipeline)

    words[0] = "two"

    assert world.build(pipeline).written == 2


def test_another_tool_with_a_function_is_another_rule_for_answers(world: World) -> None:
    write_rows(world.folder / "rows.jsonl", texts(1))
    asked = params(tools=[{"name": name, "input_schema": {"type": "object"}} for name in ("one", "two")])

    def with_functions(*names: str) -> Pipeline:
        hooks = Hooks(tool_functions=dict.fromkeys(names, str))
        return world.pipeline(params=asked, retry={"paused": 1}, hooks=hooks)

    settled(world, with_functions("one"))

    assert world.build(with_functions("one")).is_unchanged
    assert not world.build(with_functions("one", "two")).is_unchanged


def test_a_pipeline_with_notices_has_a_submission_for_each_run(world: World) -> None:
    attributes = {"notify": [{"webhook": {"url_env": "HOOK_URL", "secret_env": "HOOK_SECRET"}}]}
    first = settled(world, world.pipeline(texts(2), **attributes))

    assert world.build(world.pipeline(**attributes)).submission_id != first.submission_id


def test_a_file_that_has_just_changed_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged, "_SETTLED_SECONDS", 3600.0)
    pipeline = world.pipeline(texts(3))
    settled(world, pipeline)

    assert not world.build(pipeline).is_unchanged


def test_what_is_not_answered_is_asked(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.build(pipeline)
    assert not world.build(pipeline).is_unchanged  # nothing is sent
    world.submit(pipeline)

    report = world.build(pipeline)

    assert not report.is_unchanged
    assert report.in_flight == 3


def test_failed_rows_are_looked_at_again(world: World) -> None:
    world.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 0.5}}}])
    pipeline = world.pipeline(texts(20))
    settled(world, pipeline)
    assert {*world.table(pipeline)["result_type"]} == {"succeeded", "errored"}

    report = world.build(pipeline)

    assert not report.is_unchanged
    assert report.written == 0


def test_a_user_may_ask_for_more(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    settled(world, pipeline)

    assert world.build(pipeline, refresh=True).written == 3


def test_a_damaged_response_file_is_found(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    settled(world, pipeline)
    (path,) = world.path(pipeline.name, "responses").glob("*.parquet")

    path.write_bytes(b"damaged")

    report = world.build(pipeline)
    assert not report.is_unchanged
    assert report.in_flight == 3
    assert world.finish(pipeline).results is not None


@pytest.mark.parametrize("name", ["index.parquet", "rejected.parquet"])
def test_damaged_files_of_the_submission_are_written_again(world: World, name: str) -> None:
    pipeline = world.pipeline(texts(3))
    folder = world.submission_folder(pipeline, settled(world, pipeline))

    (folder / name).write_bytes(b"damaged")

    report = world.build(pipeline)
    assert not report.is_unchanged
    assert report.reused == 3
    assert len(world.run(pipeline)) == 3


def test_erased_rows_are_rejected(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    settled(world, pipeline)
    erase(world.root, pipeline.name, ["row-1"], pipeline)

    report = world.build(pipeline)

    assert not report.is_unchanged
    assert report.rejected == 1
    world.finish(pipeline)
    assert world.build(pipeline).is_unchanged


def test_partitions_are_told_apart(world: World, reads: Reads) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        write_rows(world.folder / f"{day}.jsonl", texts(2, day))
    attributes = {
        "dataset": {"path": "{partition}.jsonl", "key": "id"},
        "partitions": {"daily": {"start": "2026-01-01"}},
    }
    pipeline = world.pipeline(**attributes)
    for day in ("2026-01-01", "2026-01-02"):
        settled(world, pipeline, day)
    assert not world.build(
        pipeline, "2026-01-01"
    ).is_unchanged  # there are new answers since its table was written
    for day in ("2026-01-01", "2026-01-02"):
        world.finish(pipeline, day)

    write_rows(world.folder / "2026-01-02.jsonl", texts(3, "2026-01-02"))

    assert world.build(pipeline, "2026-01-01").is_unchanged
    assert world.build(pipeline, "2026-01-02").written == 1


def test_rows_without_a_partition_are_still_counted(world: World) -> None:
    rows = pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "part": ["one", "other"]})
    rows.to_csv(world.folder / "rows.csv", index=False)
    pipeline = world.pipeline("rows.csv", partitions={"column": "part", "static": ["one"]})
    first = settled(world, pipeline, "one")
    assert first.without_partition == 1

    again = world.build(pipeline, "one")

    assert again.is_unchanged
    assert again.without_partition == 1


def test_partitions_that_are_divided_as_before_again_have_a_submission_of_their_own(world: World) -> None:
    """Otherwise the other division would remain the present one, and this one's tables the former ones."""
    rows = pd.DataFrame({"id": ["a", "b"], "text": ["x", "y"], "part": ["one", "one"], "other": ["two", "two"]})
    rows.to_csv(world.folder / "rows.csv", index=False)
    by_part = world.pipeline("rows.csv", partitions={"column": "part", "static": ["one"]})
    by_other = world.pipeline("rows.csv", partitions={"column": "other", "static": ["two"]})
    settled(world, by_part, "one")
    settled(world, by_other, "two")

    report = settled(world, by_part, "one")

    assert not report.is_unchanged
    assert list(world.table(by_part)["id"]) == ["a", "b"]


def test_objects_are_compared_by_their_etag(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    info = MemoryFileSystem.info

    def with_etag(files: MemoryFileSystem, path: str, **more: Any) -> dict[str, Any]:
        return {**info(files, path, **more), "ETag": hashlib.md5(files.cat_file(path)).hexdigest()}

    monkeypatch.setattr(MemoryFileSystem, "info", with_etag)
    content = write_rows(world.folder / "rows.jsonl", texts(2)).read_bytes()
    MemoryFileSystem().pipe("/unchanged/rows.jsonl", content)
    pipeline = world.pipeline("memory://unchanged/rows.jsonl")
    settled(world, pipeline)
    assert world.build(pipeline).is_unchanged

    MemoryFileSystem().pipe("/unchanged/rows.jsonl", content.replace(b"text of row 1", b"TEXT of row 1"))

    assert world.build(pipeline).written == 1


def test_objects_without_an_etag_are_read(world: World) -> None:
    content = write_rows(world.folder / "rows.jsonl", texts(2)).read_bytes()
    MemoryFileSystem().pipe("/unchanged/rows.jsonl", content)
    pipeline = world.pipeline("memory://unchanged/rows.jsonl")
    settled(world, pipeline)

    assert not world.build(pipeline).is_unchanged
