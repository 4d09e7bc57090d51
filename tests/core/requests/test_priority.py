"""Requests of urgent rows go into the first files; nothing else about them changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain

from ..support import World, make_pipeline

ROWS = [(f"r{number}", f"text {number}", number % 3) for number in range(9)]
URGENCY = {id_: urgency for id_, _, urgency in ROWS}
IN_ORDER = ["r2", "r5", "r8", "r1", "r4", "r7", "r0", "r3", "r6"]


def write(folder: Path, rows: list[tuple[str, str, Any]]) -> None:
    lines = [orjson.dumps({"id": id_, "text": text, "urgency": urgency}) for id_, text, urgency in rows]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def prioritized(world: World, priority: str | None = "urgency", size: int = 2, **more: Any) -> Any:
    batching = {"max_requests": size, "priority": priority} if priority else {"max_requests": size}
    return world.pipeline(batching=batching | more.pop("batching", {}), **more)


def ids_of(lines: bytes) -> list[str]:
    return [str(orjson.loads(line)["custom_id"]).split("-")[0] for line in lines.splitlines()]


def path_of(world: World, pipeline: Any, name: str) -> Path:
    file = next(each for each in world.files(pipeline) if each.name == name)
    return world.path(pipeline.name, "requests", file.submission_id, name)


def written(world: World, pipeline: Any) -> list[str]:
    """The row keys in the request files, file by file."""
    files = [path_of(world, pipeline, file.name) for file in world.files(pipeline)]
    return [key for path in files for key in ids_of(path.read_bytes())]


@pytest.mark.parametrize("priority", ["urgency", "{{ urgency }}", "{{ row['urgency'] * 10 }}", "{% if urgency == 2 %}7{% elif urgency %}1{% endif %}"])  # fmt: skip  # noqa: E501
def test_urgent_rows_go_into_the_first_files_and_the_table_keeps_its_order(world: World, priority: str) -> None:
    write(world.folder, ROWS)
    pipeline = prioritized(world, priority)
    world.build(pipeline)
    assert written(world, pipeline) == IN_ORDER
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["id"]) == [id_ for id_, _, _ in ROWS]


def test_files_are_sent_in_the_order_of_priority(new_world: Any) -> None:
    world = new_world(BATCH_ASSETS_TRANSFERS="1")
    write(world.folder, ROWS)
    world.send(prioritized(world))
    assert [custom_id.split("-")[0] for custom_id in world.accepted_custom_ids()] == IN_ORDER


def test_a_request_that_rows_share_has_the_highest_of_their_priorities(world: World) -> None:
    rows = [("a", "one", 0), ("b", "two", 5), ("c", "three", 1), ("d", "one", 9), ("e", "three", None)]
    write(world.folder, rows)
    pipeline = prioritized(world)
    report = world.build(pipeline)
    assert report.written == 3
    assert written(world, pipeline) == ["a", "b", "c"]
    write(world.folder, [*rows, *[(f"f{number}", f"more {number}", 6) for number in range(5000)], ("g", "two", 7)])
    world.build(prioritized(world, size=100_000))
    assert written(world, pipeline)[:3] == ["a", "b", "f0"]


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ([None, -1, 2], ["r2", "r0", "r1"]),
        ([False, True, False], ["r1", "r0", "r2"]),
        ([0.5, None, -0.5], ["r0", "r1", "r2"]),
        ([None, None, None], ["r0", "r1", "r2"]),
    ],
)
def test_numbers_and_booleans_count_and_null_is_zero(world: World, values: list[Any], first: list[str]) -> None:
    for priority in ("urgency", "{{ urgency }}"):
        write(world.folder, [(f"r{number}", f"text {number}", value) for number, value in enumerate(values)])
        pipeline = prioritized(world, priority)
        world.build(pipeline)
        assert written(world, pipeline) == first


@pytest.mark.parametrize(
    ("priority", "problem"),
    [
        ("level", r"batching\.priority: 'level' is not a column of .*; its columns: id, text, urgency"),
        ("{{ level }}", r"batching\.priority: 'level' is not a column"),
        ("urgency", r"batching\.priority: the column 'urgency' has the type .*string.* such as \"\{\{ 1 if row"),
        ("{{ urgency }}", r"batching\.priority: the row 'b': 'high' is not a number"),
        ("{{ urgency + 1 }}", r"batching\.priority: the row 'a': "),
        ("{{ urgency", r"batching\.priority: "),
    ],
)
def test_what_is_no_number_is_an_error_before_anything_is_written(
    world: World, priority: str, problem: str
) -> None:
    write(world.folder, [("a", "one", "2"), ("b", "two", "high")])
    with pytest.raises(ConfigError, match=problem):
        pipeline = prioritized(world, priority)
        world.build(pipeline)
    assert not world.query("select id from submission")


def test_a_changed_priority_orders_what_is_unsent_and_neither_renders_nor_asks_again(world: World) -> None:
    write(world.folder, ROWS)
    world.run(prioritized(world, None))
    sent = len(world.accepted_custom_ids())
    assert world.build(prioritized(world)).rendered == 0
    write(world.folder, [*ROWS, *[(f"n{number}", f"new {number}", number) for number in range(4)]])
    pipeline = prioritized(world, "{{ urgency }}")
    report = world.build(pipeline)
    assert (report.rendered, report.written) == (4, 4)
    assert written(world, pipeline) == ["n3", "n2", "n1", "n0"]
    pipeline = prioritized(world, "{{ -urgency }}")
    assert world.build(pipeline).written == 4
    assert written(world, pipeline) == ["n0", "n1", "n2", "n3"]
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted_custom_ids()) == sent + 4


def test_limit_takes_the_first_rows_and_a_pilot_random_ones(world: World) -> None:
    write(world.folder, ROWS)
    pipeline = prioritized(world)
    world.build(pipeline, limit=4)
    assert written(world, pipeline) == ["r2", "r1", "r0", "r3"]
    piloted = prioritized(world, name="piloted", pilot=3)
    plain = prioritized(world, None, name="plain", pilot=3)
    world.build(piloted)
    world.build(plain)
    pilots = [[file.name for file in world.files(each) if file.hold is None] for each in (piloted, plain)]
    assert pilots[0] == ["part-00000.jsonl", "part-00001.jsonl"]
    rest = written(world, piloted)[3:]
    assert [URGENCY[id_] for id_ in rest] == sorted((URGENCY[id_] for id_ in rest), reverse=True)
    held = {file.name for file in world.files(plain)} - {*pilots[1]}
    assert {*rest} == {id_ for name in held for id_ in ids_of(path_of(world, plain, name).read_bytes())}


def test_rows_of_each_kind_of_file_are_in_order(world: World) -> None:
    write(world.folder, ROWS)
    pipeline = prioritized(world, betas=["{{ 'output-300k-2026-03-24' if urgency == 1 else none }}"])
    world.build(pipeline)
    assert [set(written(world, pipeline)[start : start + 2]) for start in (0, 2)] == [{"r2", "r5"}, {"r8", "r0"}]


def test_a_plan_finds_a_wrong_priority_and_counts_the_same_files(world: World) -> None:
    write(world.folder, ROWS)
    plans = [plan_requests(world.root, prioritized(world, each), "", AskAgain()) for each in (None, "urgency")]
    assert plans[0].batches == plans[1].batches == 5
    with pytest.raises(ConfigError, match=r"batching\.priority"):
        plan_requests(world.root, prioritized(world, "text"), "", AskAgain())


def test_an_empty_dataset_has_no_priorities(world: World) -> None:
    (world.folder / "rows.jsonl").write_bytes(b"")
    assert world.build(prioritized(world)).rows == 0


def test_the_folder_of_a_pipeline_may_hold_files_that_the_template_includes(world: World) -> None:
    write(world.folder, ROWS)
    (world.folder / "urgent.txt").write_text("{{ urgency }}")
    dataset = {"path": "rows.jsonl", "key": "id"}
    batching = {"max_requests": 2, "priority": "{% include 'urgent.txt' %}"}
    pipeline = make_pipeline(world.folder, dataset, batching=batching)
    world.build(pipeline)
    assert written(world, pipeline) == IN_ORDER
