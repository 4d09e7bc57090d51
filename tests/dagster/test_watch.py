"""New files start a pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import fsspec
import pytest

from batch_assets import build_message_batch_watch_sensors
from batch_assets.core.dataset.changes import fingerprints
from batch_assets.core.errors import ConfigError
from batch_assets.dagster.pipelines import pipelines_in

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
DAYS = {"daily": {"start": "2026-01-01", "timezone": "Europe/Berlin"}}
BY_DAY = {"path": "days/{partition}.csv"}


class Watched:
    """A pipeline with `watch: true` whose sensor ticks on demand."""

    def __init__(self, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> None:
        self.assets, self.instance = assets, instance
        self.cursor: str | None = None
        (self.sensor,) = build_message_batch_watch_sensors(assets)
        self.repository = dg.Definitions(assets=assets, sensors=[self.sensor]).get_repository_def()

    def look(self) -> tuple[list[str | None], str]:
        """Tick; return the partitions that are asked for, and the sensor's message."""
        with dg.SensorEvaluationContext(  # like the daemon: with a reference, if there is one
            instance_ref=self.instance.get_ref() if self.instance.is_persistent else None,
            instance=self.instance,
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=self.cursor,
            repository_name=None,
            repository_def=self.repository,
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor or self.cursor
        for added in data.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(added.partitions_def_name, added.partition_keys)
        return [request.partition_key for request in data.run_requests or []], data.skip_message or ""

    def settle(self) -> list[str | None]:
        """Tick twice, and return what the second tick asks for."""
        assert self.look()[0] == []
        return self.look()[0]


def write_day(folder: Path, day: str, text: str = "hello") -> None:
    (folder / "days").mkdir(exist_ok=True)
    (folder / "days" / f"{day}.csv").write_text(f"id,text\n1,{text} {day}\n")


def test_a_file_is_run_when_two_ticks_saw_it_unchanged(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched = Watched(make_assets(watch=True), instance)
    assert (watched.sensor.name, watched.sensor.default_status) == (
        "greetings_watch_sensor",
        dg.DefaultSensorStatus.RUNNING,
    )
    # As far as the sensor knows, no run has read what is there at the first tick.
    partitions, message = watched.look()
    assert (partitions, message) == (
        [],
        "New or changed, run if they are the same at the next tick: greetings.csv.",
    )
    assert watched.look()[0] == [None]
    assert watched.look() == ([], "No file of greetings.csv is new or has changed.")
    file = tmp_path / "greetings.csv"
    before = file.read_text()
    for _ in range(3):  # still being written
        file.write_text(file.read_text() + "7,more\n")
        assert watched.look()[0] == []
    assert watched.look()[0] == [None]
    file.write_text(before)  # the earlier content: its rows differ from those of the last run
    assert watched.settle() == [None]
    file.unlink()
    partitions, message = watched.look()
    assert (partitions, "there is no file or folder greetings.csv" in message) == ([], True)
    assert len(str(watched.cursor)) < 200


def test_a_tick_that_dagster_repeats_asks_for_the_same(
    make_assets: MakeAssets, instance: dg.DagsterInstance
) -> None:
    watched = Watched(make_assets(watch=True), instance)
    watched.look()
    cursor = watched.cursor
    assert watched.look()[0] == [None]
    watched.cursor = cursor  # the tick died before Dagster took its cursor and its run
    assert watched.look()[0] == [None]
    watched.cursor = "not ours"
    assert watched.settle() == [None]


def test_folders_and_patterns_notice_added_and_removed_files(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    for path in ("days", "days/*.csv"):
        for file in (tmp_path / "days").glob("*"):
            file.unlink()
        watched = Watched(make_assets(dataset={"path": path}, watch=True), instance)
        if path != "days":
            assert watched.look() == ([], "There is no file days/*.csv yet.")
        write_day(tmp_path, "a")
        assert watched.settle() == [None]
        write_day(tmp_path, "b")
        assert watched.settle() == [None]
        (tmp_path / "days" / ".c.csv.part").write_text("being written by another program")
        assert watched.settle() == []
        (tmp_path / "days" / "a.csv").unlink()
        assert watched.settle() == [None]


def test_only_partitions_whose_files_changed_are_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    watched = Watched(make_assets(dataset=BY_DAY, partitions=DAYS, watch=True), instance)
    for day in ("2026-01-01", "2026-01-02", "2999-01-01", "readme"):
        write_day(tmp_path, day)
    partitions, message = watched.look()
    assert partitions == []
    assert message.endswith(
        "2026-01-01, 2026-01-02. In no partition, or in one whose time is not over: 2999-01-01, readme."
    )
    assert watched.look()[0] == ["2026-01-01", "2026-01-02"]
    write_day(tmp_path, "2026-01-02", "changed")
    write_day(tmp_path, "2026-01-03")
    assert watched.look()[0] == []
    write_day(tmp_path, "2026-01-03", "and still written to, which holds the other one up not at all")
    assert watched.look()[0] == ["2026-01-02"]
    assert watched.look()[0] == ["2026-01-03"]
    assert watched.look()[0] == []


def test_a_file_that_is_no_longer_in_a_partition_delays_no_other(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    watched = Watched(make_assets(dataset=BY_DAY, partitions=DAYS, watch=True), instance)
    write_day(tmp_path, "2026-01-01")
    assert watched.settle() == ["2026-01-01"]
    later = Watched(
        make_assets(dataset=BY_DAY, partitions={"daily": {"start": "2026-01-02"}}, watch=True), instance
    )
    later.cursor = watched.cursor
    write_day(tmp_path, "2026-01-01", "written again")
    write_day(tmp_path, "2026-01-02")
    assert later.settle() == ["2026-01-02"]


def test_partitions_of_two_dimensions_one_of_them_dynamic(
    make_assets: MakeAssets, kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    sizes, colors = dg.StaticPartitionsDefinition(["s", "m"]), dg.DynamicPartitionsDefinition(name="greetings")
    both = dg.MultiPartitionsDefinition({"color": colors, "size": sizes})
    watched = Watched(make_assets(dataset=BY_DAY, partitions=both, watch=True), kept)
    kept.add_dynamic_partitions("greetings", ["red"])
    for key in ("red|s", "blue|s", "red"):
        write_day(tmp_path, key)
    assert watched.settle() == ["red|s"]


@pytest.mark.parametrize(
    "path", ["days/{partition}", "days/{partition}/*.csv", "days/{partition}/{partition}.csv"]
)
def test_a_folder_for_each_partition_and_keys_that_are_new(
    make_assets: MakeAssets, kept: dg.DagsterInstance, tmp_path: Path, path: str
) -> None:
    watched = Watched(make_assets(dataset={"path": path}, partitions={"dynamic": True}, watch=True), kept)
    for key in ("de", "[en]", ".being_copied"):
        (tmp_path / "days" / key).mkdir(parents=True)
        (tmp_path / "days" / key / f"{key}.csv").write_text("id,text\n1,hello\n")
    assert watched.settle() == ["[en]", "de"]
    assert sorted(kept.get_dynamic_partitions("greetings")) == ["[en]", "de"]
    (tmp_path / "days" / "de" / "de.csv").write_text("id,text\n1,hello\n2,again\n")
    assert watched.settle() == ["de"]


def test_many_partitions_come_a_few_at_a_time_and_leave_the_cursor_short(
    make_assets: MakeAssets, kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    watched = Watched(make_assets(dataset=BY_DAY, partitions={"dynamic": True}, watch=True), kept)
    keys = [f"key{number:03}" for number in range(60)]
    for key in keys:
        write_day(tmp_path, key)
    partitions: list[str | None] = []
    for _ in range(4):
        partitions += watched.look()[0]
    assert partitions == keys
    assert watched.look()[0] == []
    assert len(str(watched.cursor)) < 100
    kept = list((tmp_path / "root" / "greetings" / "watch").iterdir())
    assert len(kept) <= 2
    for file in kept:  # a root that is lost: everything counts as new, and what is answered is not sent again
        file.unlink()
    assert watched.settle() == keys[:25]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"dataset": {"sql": "select 1", "url_env": "U"}}, "watch: only files can be watched"),
        ({"dataset": {"asset": "reviews"}}, "watch: only files can be watched; to follow the asset reviews set"),
        (
            {"partitions": {"static": ["de"], "column": "text"}},
            "watch: files do not show which partitions have changed",
        ),
    ],
)
def test_what_cannot_be_watched_is_refused_at_load(
    make_assets: MakeAssets, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_assets(watch=True, **fields)
    assert problem in str(caught.value)


@pytest.mark.parametrize("path", ["memory://incoming/{partition}.csv", "memory://incoming/*.csv"])
def test_files_of_another_file_system(make_assets: MakeAssets, kept: dg.DagsterInstance, path: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.rm("/incoming", recursive=True) if fs.exists("/incoming") else None
    partitions = {"dynamic": True} if "{" in path else None
    watched = Watched(make_assets(dataset={"path": path}, partitions=partitions, watch=True), kept)
    assert "There is no file" in watched.look()[1]
    fs.pipe("/incoming/a.csv", b"id,text\n1,hello\n")
    assert watched.settle() == ["a" if partitions else None]
    fs.pipe("/incoming/a.csv", b"id,text\n1,hello\n2,hello\n")
    assert watched.settle() == ["a" if partitions else None]


def test_a_remembered_listing_of_a_file_system_is_refreshed(make_assets: MakeAssets, tmp_path: Path) -> None:
    write_day(tmp_path, "a")
    for path in ("file-kept://{}/days/{{partition}}.csv", "file-kept://{}/days/*.csv"):
        fsspec.register_implementation("file-kept", _KeepsListings, clobber=True)
        partitions = {"dynamic": True} if "partition" in path else None
        assets = make_assets(dataset={"path": path.format(tmp_path)}, partitions=partitions)
        (bound,) = pipelines_in(assets[0].specs).values()
        first = fingerprints(bound.pipeline)
        write_day(tmp_path, "a", f"longer {path}")
        assert fingerprints(bound.pipeline) != first


class _KeepsListings(fsspec.implementations.local.LocalFileSystem):  # type: ignore[misc]
    """A file system that remembers listings, like those of object stores, until they are invalidated."""

    protocol = "file-kept"
    cachable = True

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        kept = self.__dict__.setdefault("kept", {})
        if path not in kept:
            kept[path] = super().ls(path, detail=True, **kwargs)
        return kept[path] if detail else [entry["name"] for entry in kept[path]]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.__dict__.pop("kept", None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("file-kept://")))
