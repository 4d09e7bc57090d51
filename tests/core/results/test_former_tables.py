"""A pipeline that gets partitions later, or loses them: reading all of `results` shows every row once."""

from __future__ import annotations

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
