"""Partitions that a run gathers in the same request files."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.requests.report import RequestsReport

from ..support import World, make_pipeline, texts
from .gathering import NAME, Gathering

KEYS = ["a", "b", "c", "d"]


def test_small_partitions_become_one_file_and_one_batch(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    gathering = Gathering.of(world, {f"p{number:02}": 3 for number in range(25)})
    outcomes = gathering.build()
    assert gathering.written(outcomes) == dict.fromkeys(gathering.rows, 3)
    assert sum(len(each.files) for each in outcomes.values()) == 1
    assert gathering.files() == [("p00", 75, "ready")]
    assert gathering.waits() == dict.fromkeys(gathering.rows, 1)
    assert world.query("select name from lease") == []
    for outcome in gathering.submit().values():
        assert (len(outcome.submitted), outcome.waiting) == (1, {})
    gathering.finish()
    assert [batch["requests"] for batch in world.accepted()] == [75]
    gathering.check()
    assert gathering.written(gathering.build()) == dict.fromkeys(gathering.rows, 0)
    assert len(gathering.files()) == 1


def test_partitions_that_share_requests_send_each_once(world: World) -> None:
    gathering = Gathering(world, {key: texts(3, "shared") | texts(2, key) for key in KEYS})
    outcomes = gathering.build()
    assert gathering.written(outcomes) == {"a": 5, "b": 2, "c": 2, "d": 2}
    assert [each.in_flight for each in outcomes.values()] == [0, 3, 3, 3]
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_files_keep_within_the_limits(world: World) -> None:
    """A partition that fills files has its own, and the rest of it is gathered."""
    gathering = Gathering.of(
        world,
        {"a": 4, "b": 5, "c": 23, "d": 4, "e": 1},
        batching={
            "across_partitions": True,
            "max_requests": 10,
        },
    )
    gathering.build()
    assert gathering.files() == [("a", 9, "ready"), ("c", 10, "ready"), ("c", 10, "ready"), ("c", 8, "ready")]
    assert gathering.waits() == {"a": 1, "b": 1, "c": 3, "d": 1, "e": 1}
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_a_wrong_dataset_holds_back_no_other_partition(world: World) -> None:
    gathering = Gathering.of(world, {"a": 3, "b": 3, "c": 3, "d": 3})
    (world.folder / "a.jsonl").unlink()
    lines = (world.folder / "c.jsonl").read_bytes()
    (world.folder / "c.jsonl").write_bytes(lines + lines.splitlines()[0])  # the last row has the key of the first
    outcomes = gathering.build()
    assert gathering.written(outcomes) == {"a": -1, "b": 3, "c": -1, "d": 3}
    assert all(isinstance(outcomes[key], DatasetError) for key in "ac")
    assert gathering.files() == [("b", 6, "ready")]
    assert list(world.path(NAME, "requests").rglob("*.tmp")) == []
    assert not any(world.path(NAME, "requests", "partition=c").iterdir())
    gathering.submit(["b", "d"])
    gathering.write("a", texts(3, "a row"))
    gathering.write("c", texts(3, "c row"))
    assert gathering.written(gathering.build()) == {"a": 3, "b": 0, "c": 3, "d": 0}
    gathering.submit()
    gathering.finish()
    gathering.check()


def test_a_run_of_one_partition_is_as_without_gathering(world: World) -> None:
    gathering = Gathering.of(world, {"a": 3})
    report = gathering.build()["a"]
    assert isinstance(report, RequestsReport)
    manifest = json.loads(
        world.submission_folder(gathering.pipeline(), report, "a").joinpath("manifest.json").read_text()
    )
    assert not {"written", "registered_with", "holds"} & manifest.keys()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dataset": {"path": "rows.jsonl", "key": "id"}}, "has no partitions to gather"),
        ({"dataset": {"asset": "rows"}, "partitions": {"static": ["a"]}}, "is loaded by a run of its own"),
    ],
)
def test_it_is_refused_where_nothing_can_be_gathered(
    world: World, fields: dict[str, object], problem: str
) -> None:
    dataset = fields.pop("dataset")
    with pytest.raises(ConfigError, match=rf"batching.across_partitions: .*{problem}"):
        make_pipeline(world.folder, dataset, batching={"across_partitions": True}, **fields)  # type: ignore[arg-type]
