"""A pipeline that gets, loses or changes its partitions: reading all of `results` shows every row once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import pytest

from batch_assets.core.results.write import write_results

from ..support import World, texts

PARTITIONED = {"dataset": {"path": "{partition}.jsonl", "key": "id"}, "partitions": {"static": ["a", "b"]}}


def run(world: World, partition: str, **attributes: object) -> list[str]:
    """Run a partition and return what was reported about its table."""
    pipeline = world.pipeline(texts(3), **attributes)
    if partition:
        (world.folder / "rows.jsonl").rename(world.folder / f"{partition}.jsonl")
    world.send(pipeline, partition)
    done = world.finish(pipeline, partition)
    assert done.results is not None
    return done.results.problems


def test_partitions_given_later_move_the_old_table_away(world: World) -> None:
    assert run(world, "") == []
    old = world.path("asked", "results", "results.parquet").read_bytes()
    (text,) = run(world, "a", **PARTITIONED)
    assert "double its rows" in text
    moved = world.path("asked", "results_without_partitions", "results.parquet")
    assert str(moved.parent) in text
    assert moved.read_bytes() == old
    assert run(world, "b", **PARTITIONED) == []
    table = world.table(world.pipeline(**PARTITIONED))
    assert sorted(zip(table["id"], table["partition"], strict=True)) == sorted(
        (f"row-{number}", partition) for number in range(3) for partition in "ab"
    )


def test_a_late_answer_to_the_old_submission_does_not_bring_its_table_back(world: World) -> None:
    run(world, "")
    run(world, "a", **PARTITIONED)
    world.path("asked", "results_without_partitions", "results.parquet").unlink()
    assert write_results(world.root, "asked") is not None
    assert world.path("asked", "results_without_partitions", "results.parquet").is_file()
    assert not world.path("asked", "results", "results.parquet").exists()
    assert world.path("asked", "results", "partition=a", "results.parquet").is_file()


def test_partitions_taken_away_move_their_tables_away(world: World) -> None:
    run(world, "a", **PARTITIONED)
    run(world, "b", **PARTITIONED)
    (text,) = run(world, "")
    assert str(world.path("asked", "results_with_partitions")) in text
    assert len(world.table(world.pipeline())) == 3
    names = [path.name for path in world.path("asked", "results_with_partitions").iterdir()]
    assert sorted(names) == ["partition=a", "partition=b"]


def test_partitions_that_come_and_go_leave_no_table_twice(world: World) -> None:
    run(world, "a", **PARTITIONED)
    run(world, "")
    (text,) = run(world, "a", **PARTITIONED)
    assert "results_without_partitions" in text
    assert folders(world) == ["a"]


ROWS = [{"id": n, "text": f"text {n}", "k": "ab"[n % 2], "d": f"2026-01-0{1 + n % 3}"} for n in range(6)]
BY_K: dict[str, Any] = {"partitions": {"column": "k"}}
BY_D: dict[str, Any] = {"partitions": {"column": "d"}}
DAILY: dict[str, Any] = {"partitions": {"daily": {"start": "2026-01-01"}, "column": "d"}}
MONTHLY: dict[str, Any] = {"partitions": {"monthly": {"start": "2026-01-01"}, "column": "d"}}
STATIC: dict[str, Any] = {"partitions": {"static": ["a", "b"], "column": "k"}}
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


def divide(world: World, keys: Iterable[str], **attributes: Any) -> list[str]:
    """Run some partitions of the same rows, and return what was reported about their tables."""
    (world.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pipeline = world.pipeline(**attributes)
    texts = []
    for key in keys:
        world.send(pipeline, key)
        done = world.finish(pipeline, key)
        assert done.results is not None
        texts += done.results.problems
    return texts


def folders(world: World, name: str = "results") -> list[str]:
    return sorted(unquote(path.name).removeprefix("partition=") for path in world.path("asked", name).iterdir())


@pytest.mark.parametrize(
    ("before", "old", "after", "new"),
    [
        (BY_K, ["a", "b"], BY_D, DAYS),
        (DAILY, DAYS, STATIC, ["a", "b"]),
        (BY_K, ["a", "b"], DAILY, DAYS),
        (DAILY, DAYS, MONTHLY, ["2026-01-01"]),
    ],
    ids=["another column", "days to keys", "keys to days", "days to months"],
)
def test_tables_of_other_partitions_are_moved_away(
    world: World, before: dict[str, Any], old: list[str], after: dict[str, Any], new: list[str]
) -> None:
    assert divide(world, old, **before) == []
    (text,) = divide(world, new[:1], **after)
    left = [key for key in old if key not in new]
    assert "would double its rows" in text and f"former tables, {len(left)}, were moved to" in text
    assert folders(world) == new[:1] and folders(world, "results_with_partitions") == left
    assert divide(world, new[1:], **after) == []
    assert sorted(world.table(world.pipeline(**after))["id"]) == list(range(6))
    assert len(world.accepted_custom_ids()) == 6


def test_partitions_that_come_back_move_the_others_away(world: World) -> None:
    divide(world, "ab", **BY_K)
    divide(world, DAYS, **BY_D)
    (text,) = divide(world, "ab", **BY_K)
    assert "(keys, by the column d) than now (keys, by the column k)" in text
    assert folders(world) == ["a", "b"]
    assert folders(world, "results_with_partitions") == [*DAYS, "a", "b"]


def test_a_late_answer_to_a_partition_of_a_former_column_stays_away(world: World) -> None:
    divide(world, "ab", **BY_K)
    divide(world, DAYS[:1], **BY_D)
    assert write_results(world.root, "asked", "a") is not None
    assert folders(world) == DAYS[:1]
    assert folders(world, "results_with_partitions") == ["a", "b"]


@pytest.mark.parametrize(
    "after",
    [STATIC, {"partitions": {"static": ["b"], "column": "k"}}, {"partitions": {"dynamic": True, "column": "k"}}],
    ids=["listed keys", "a key less", "added keys"],
)
def test_tables_of_the_same_division_are_left(world: World, after: dict[str, Any]) -> None:
    divide(world, "ab", **BY_K)
    assert divide(world, "b", **after) == []
    assert folders(world) == ["a", "b"]


def test_tables_of_early_manifests_are_left(world: World) -> None:
    divide(world, "ab", **BY_K)
    for path in world.path("asked", "requests").glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["division"]
        path.write_text(json.dumps(manifest))
    world.reopened()
    assert divide(world, DAYS[:1], **BY_D) == []
    assert folders(world) == [*DAYS[:1], "a", "b"]
