"""Rounds of several partitions in one run, and a killed run of many."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from batch_assets import build_message_batch_sensor
from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.rounds import no_round
from batch_assets.core.open_root import open_root
from batch_assets.core.planning.steps import Announce, Collect, Join, Joining, Round, Send, SendReason
from batch_assets.dagster import keys
from batch_assets.dagster.rounds import may_go_on
from batch_assets.dagster.sensors import launch as launch_module
from batch_assets.dagster.sensors import tick as tick_module
from batch_assets.dagster.sensors.groups import Due, PartitionOrder, grouped
from batch_assets.dagster.sensors.launch import Launch
from batch_assets.emulator import Emulator
from benchmarks.history import measured
from tests.core.support import wait_for
from tests.forked import ForkServer

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
KEYS = [f"p{number}" for number in range(6)]
SUBMISSION = Submission(
    **dict.fromkeys(("seq", "rows", "rejected", "requests", "written", "ask_again", "left_out"), 0),
    **dict.fromkeys(("max_attempts", "max_requests", "max_bytes"), 1),
    **dict.fromkeys(("began_at", "joined_seq", "joined_at", "counts", "final_at", "announced_at"), None),
    **dict.fromkeys(("fresh_after", "canceled_at", "estimate"), None),
    id="s",
    pipeline="greetings",
    partition="",
    created_at=1.0,
    headers="{}",
)


def ledger(statement: str) -> list[Any]:
    with open_root() as root, root.ledger.write() as tx:
        result = tx.execute(text(statement))
        return list(result) if result.returns_rows else []


class Location:
    """A code location with a pipeline of six partitions that ticks on demand."""

    def __init__(self, assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> None:
        self.assets, self.instance = assets, instance

    def materialize(self, *stages: str, **how: Any) -> dg.ExecuteInProcessResult:
        selection = [asset.key for asset in self.assets if asset.key.path[-1] in stages]
        return dg.materialize(
            self.assets, selection=selection, instance=self.instance, raise_on_error=False, **how
        )

    def send(self, *stages: str) -> None:
        stages = stages or ("requests", "batches")
        assert self.materialize(*stages, tags={START: KEYS[0], END: KEYS[-1]}).success

    def tick(self) -> list[dg.RunRequest]:
        sensor = build_message_batch_sensor()
        repository = dg.Definitions(assets=self.assets, sensors=[sensor]).get_repository_def()
        with dg.build_sensor_context(instance=self.instance, repository_def=repository) as context:
            data = sensor.evaluate_tick(context)
        self.message = data.skip_message or ""
        return list(data.run_requests or [])

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        stages = [key.path[-1] for key in request.asset_selection or []]
        return self.materialize(*stages, tags=request.tags, partition_key=request.partition_key)

    def written(self) -> dict[str, str]:
        """The text of the dataset in each partition's newest materialization, by partition."""
        records = self.instance.fetch_materializations(dg.AssetKey(["greetings", "results"]), limit=100).records
        return {str(record.partition_key): "" for record in records}


def ends(request: dg.RunRequest) -> tuple[str | None, str | None]:
    """The first and the last partition of a run."""
    tags = request.tags
    return tags.get(START, request.partition_key), tags.get(END, request.partition_key)


@pytest.fixture
def location(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> Location:
    for key in KEYS:
        (tmp_path / f"{key}.csv").write_text(f"id,text\n1,of {key}\n")
    dataset = {"path": "{partition}.csv", "key": "id"}
    return Location(make_assets(dataset=dataset, partitions={"static": KEYS}), instance)


def make_due() -> None:
    ledger("update batch set next_poll_at = 0, next_download_at = 0")


def test_one_run_brings_the_results_of_several_partitions(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.send()
    emulator.end_batches()
    make_due()
    with monkeypatch.context() as late:  # a tick whose time is over opens no round
        late.setattr(tick_module, "_ROUNDS_SECONDS", 0.0)
        assert location.tick() == []
    (request,) = location.tick()
    assert (request.partition_key, ends(request)) == (None, ("p0", "p5"))
    assert location.tick() == []
    assert location.message == "greetings p0, p1, p2, p3, p4 and 1 more: a run is queued or in progress"
    with measured() as cost:
        assert location.run(request).success
    assert cost.calls.count("names greetings/results") == 1, "it looks for tables of a former shape once"
    assert set(location.written()) == set(KEYS)
    assert ledger("select number, state, count(*) from round group by 1, 2") == [(1, "closed", 6)]
    assert location.tick() == []
    assert location.message == "No batch is open."


def test_gathered_partitions_have_one_batch_and_are_materialized_each(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    for key in KEYS:
        (tmp_path / f"{key}.csv").write_text(f"id,text\n1,of {key}\n")
    (tmp_path / "p2.csv").unlink()
    fields = {"dataset": {"path": "{partition}.csv", "key": "id"}, "partitions": {"static": KEYS}}
    location = Location(make_assets(**fields, batching={"across_partitions": True}), instance)
    built = location.materialize("requests", tags={START: KEYS[0], END: KEYS[-1]})
    assert not built.success
    records = instance.fetch_materializations(dg.AssetKey(["greetings", "requests"]), limit=10).records
    written = {str(r.partition_key): r.asset_materialization.metadata for r in records if r.asset_materialization}
    assert sorted(written) == ["p0", "p1", "p3", "p4", "p5"]
    assert sum(int(str(metadata[keys.NEW].value)) for metadata in written.values()) == 5
    assert sum(int(str(metadata[keys.FILES].value)) for metadata in written.values()) == 1
    (tmp_path / "p2.csv").write_text("id,text\n1,of p2\n")
    location.send()
    assert [batch["requests"] for batch in emulator.log()] == [6]
    emulator.end_batches()
    make_due()
    (request,) = location.tick()
    assert ends(request) == ("p0", "p5")
    assert location.run(request).success
    assert set(location.written()) == set(KEYS)
    assert location.tick() == []


@pytest.mark.parametrize(
    ("ended", "most", "expected"),
    [
        ("012345", "2", [("p0", "p1"), ("p2", "p3"), ("p4", "p5")]),
        ("0245", "25", [("p0", "p0"), ("p2", "p2"), ("p4", "p5")]),
    ],
)
def test_a_run_has_consecutive_partitions_up_to_the_setting(
    location: Location,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    ended: str,
    most: str,
    expected: list[tuple[str, str]],
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_PARTITIONS_PER_RUN", most)
    location.send()
    for number in ended:
        query = "select batch.id from batch join request_file f on f.id = file_id where f.partition = 'p{}'"
        ((batch_id,),) = ledger(query.format(number))
        emulator.end_batches(batch_id)
    make_due()
    ledger("update submission set joined_seq = 1000000")  # each table was written once, without answers
    assert sorted(map(ends, location.tick())) == expected
    assert ledger("select count(*) from round where state = 'open'") == [(len(ended),)]


@pytest.mark.parametrize("most", ["0", "1001", "many"])
def test_the_setting_is_a_number(location: Location, monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    monkeypatch.setenv("BATCH_ASSETS_PARTITIONS_PER_RUN", most)
    location.tick()
    assert location.message.startswith(
        f"BATCH_ASSETS_PARTITIONS_PER_RUN is '{most}': set it to the largest number"
    )


def test_partitions_of_a_run_that_died_come_again_in_smaller_runs(location: Location, emulator: Emulator) -> None:
    location.send()
    emulator.end_batches()
    make_due()
    expected = [(1, [("p0", "p5")]), (2, [("p0", "p4"), ("p5", "p5")]), (3, [(key, key) for key in KEYS])]
    for number, runs in expected:
        requests = location.tick()
        assert sorted(map(ends, requests)) == runs
        assert ledger(f"select count(*) from round where state = 'open' and number = {number}") == [(6,)]
        for request in requests:
            location.instance.create_run_for_job(
                dg.Definitions(assets=location.assets).resolve_implicit_global_asset_job_def(),
                status=dg.DagsterRunStatus.FAILURE,
                tags=dict(request.tags),
            )
        assert location.tick() == []
        newest = location.instance.get_runs(limit=len(runs))
        named = re.findall(r"failed \(see run (\w{8})\), the next run begins in", location.message)
        assert sorted(named) == sorted(run.run_id[:8] for run in newest)
        failed = "its last run failed" if number == 1 else f"its last {number} runs failed"
        assert failed in location.message
        ledger("update round set opened_at = opened_at - 900")
        for run in location.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
            # Dagster knows them by the time when their round was opened.
            leader, round_ = run.tags["batch_assets/submission"], run.tags["batch_assets/round"]
            of_round = f"submission_id = '{leader}' and number = {round_.split(':')[0]}"
            ((opened_at,),) = ledger(f"select opened_at from round where {of_round}")
            name = f"{round_.split(':')[0]}:{int(opened_at)}"
            location.instance.add_run_tags(run.run_id, {"batch_assets/round": name})
    assert all(location.run(request).success for request in location.tick())
    assert set(location.written()) == set(KEYS)


def test_complete_partitions_of_a_run_are_not_held_up_by_the_others(
    location: Location, emulator: Emulator
) -> None:
    location.send()
    ((batch_id,),) = ledger(
        "select batch.id from batch join request_file f on f.id = file_id where partition = 'p2'"
    )
    emulator.expire_batches(batch_id)
    emulator.end_batches()
    make_due()
    (first,) = location.tick()
    assert location.run(first).success
    assert location.written() == {}
    again = {ends(request): request for request in location.tick()}
    assert set(again) == {("p0", "p1"), ("p2", "p2"), ("p3", "p5")}
    assert [key.path[-1] for key in again[("p2", "p2")].asset_selection or []] == ["batches", "results"]
    for request in again.values():
        assert location.run(request).success
    assert set(location.written()) == set(KEYS) - {"p2"}


def test_two_ticks_that_read_the_same_open_one_round(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.send()
    emulator.end_batches()
    make_due()
    launched = []
    original = Launch.run

    def twice(self: Launch, due: Any, now: float) -> list[dg.RunRequest]:
        launched.append(original(self, due, now))
        launched.append(original(self, due, now))  # an earlier tick that Dagster gave up, and that still runs
        return launched[0]

    monkeypatch.setattr(tick_module.Launch, "run", twice)
    assert len(location.tick()) == 1
    assert launched[1] == []
    assert ledger("select count(*) from round") == [(6,)]


def test_no_run_is_requested_while_many_wait(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_PARTITIONS_PER_RUN", "1")
    monkeypatch.setattr(launch_module, "_RUNS_AT_ONCE", 2)
    monkeypatch.setattr(launch_module, "_RUNS_WAITING", 3)
    location.send()
    emulator.end_batches()
    make_due()
    assert [ends(request)[0] for request in location.tick()] == ["p0", "p1"]
    (third,) = location.tick()
    assert ends(third)[0] == "p2"
    assert location.tick() == []
    assert "3 runs are already queued in Dagster; more are requested when some have begun" in location.message
    assert location.run(third).success
    assert [ends(request)[0] for request in location.tick()] == ["p3"]


def test_a_run_leaves_partitions_to_the_next_when_most_of_its_time_is_over(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.send()
    emulator.end_batches()
    make_due()
    (request,) = location.tick()
    with monkeypatch.context() as late:
        late.setattr(may_go_on.__module__ + "._FOR_ONE_SECONDS", 3600)
        assert location.run(request).success
    assert ledger("select count(*) from submission where final_at is not null") == [(1,)]
    assert sorted(map(ends, location.tick())) == [("p0", "p0"), ("p1", "p5")]


def test_a_group_sends_together_what_is_left(location: Location, emulator: Emulator) -> None:
    location.send("requests")
    ledger("update submission set began_at = created_at where partition < 'p4'")
    (request,) = location.tick()
    assert ends(request) == ("p0", "p3")
    assert [key.path[-1] for key in request.asset_selection or []] == ["batches", "results"]
    # A partition that no user began to send, in a run of the sensor: its key was moved between the others.
    request = request.with_replaced_attrs(tags={**request.tags, END: "p5"})
    assert location.run(request).success
    assert len(emulator.log()) == 4
    assert ledger("select count(*) from round where state = 'open'") == [(0,)]


def test_a_run_collects_the_batches_of_its_own_partitions(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_PARTITIONS_PER_RUN", "2")
    location.send()
    emulator.end_batches()
    make_due()
    requests = location.tick()
    assert len(requests) == 3
    for done, request in enumerate(requests, 1):
        assert location.run(request).success
        assert ledger("select count(*) from batch where state = 'collected'") == [(2 * done,)]
        assert ledger("select count(*) from submission where announced_at is not null") == [(2 * done,)]


def test_a_run_looks_through_the_folders_of_all_partitions_once(location: Location) -> None:
    with measured() as cost:
        location.send("requests")
    assert cost.calls.count("names greetings/requests") == 1


_SEND = """
import dagster as dg
from pathlib import Path
from batch_assets import build_message_batch_assets
folder = Path.cwd()
assets = build_message_batch_assets(
    name="greetings", dataset={"path": "{partition}.csv", "key": "id"}, folder=folder, project=folder,
    partitions={"static": [f"p{number}" for number in range(6)]},
    params={"model": "claude-haiku-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "{{ text }}"}]},
)
with dg.DagsterInstance.ephemeral() as instance:
    ends = {"dagster/asset_partition_range_start": "p0", "dagster/asset_partition_range_end": "p5"}
    dg.materialize(assets, selection=[asset.key for asset in assets][:2], instance=instance, tags=ends)
"""


def test_the_sensor_sends_the_partitions_that_a_killed_run_did_not_come_to(
    location: Location, emulator: Emulator, python: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_LEASE_SECONDS", "0.5")
    create = {"method": "POST", "path": "/v1/messages/batches", "after": 2}
    emulator.faults([{"match": create, "action": {"delay": 600.0}}])
    run = python.start("-c", _SEND, env=dict(os.environ), cwd=tmp_path)
    wait_for(
        lambda: len(emulator.log()) == 2 and ledger("select 1 from request_file where state = 'sending'"), "it"
    )
    run.kill()
    run.communicate(60)
    emulator.reset_faults()
    assert ledger("select count(*) from submission where began_at is not null") == [(6,)]
    time.sleep(0.6)  # until the dead process's leases are over
    monkeypatch.delenv("BATCH_ASSETS_LEASE_SECONDS")
    monkeypatch.setenv("BATCH_ASSETS_RECONCILE_GRACE", "0")
    requests = location.tick()
    assert sorted(map(ends, requests)) == [("p0", "p1"), ("p2", "p5")]
    (rest,) = [request for request in requests if ends(request)[0] == "p2"]
    assert location.run(rest).success
    sent = [batch["custom_ids"] for batch in emulator.log(custom_ids=True)]
    assert len(sent) == 6 and len({id_ for ids in sent for id_ in ids}) == 6
    assert ledger("select count(*) from request_file where state = 'submitted'") == [(6,)]


def due(step: Round, partition: str, began_at: float | None = None, **more: Any) -> Due:
    submission = replace(
        SUBMISSION, id=partition, partition=partition, seq=int(partition[1:]), began_at=began_at, created_at=9.0
    )
    return Due(submission, step, no_round(partition), **more)


def test_what_a_person_waits_for_longest_comes_first() -> None:
    collect, late = Collect(1, others_run=False), Send(SendReason.LATE_BATCH)
    orders = {"greetings": PartitionOrder(dg.StaticPartitionsDefinition(KEYS), dg.DagsterInstance.ephemeral())}
    entries = [due(late, "p0", 1.0), due(collect, "p1"), due(collect, "p3", 3.0), due(collect, "p5", 2.0)]
    groups = grouped(entries, orders, 25)
    assert [[entry.submission.partition for entry in group] for group in groups] == [
        ["p5"],
        ["p3"],
        ["p1"],
        ["p0"],
    ]


def test_only_what_ends_together_is_in_one_run() -> None:
    orders = {"greetings": PartitionOrder(dg.StaticPartitionsDefinition(KEYS), dg.DagsterInstance.ephemeral())}
    steps: list[Round] = [
        Collect(1, others_run=False),
        Join(Joining.FIRST, others_run=False),
        Collect(1, others_run=True),
        Announce(),
        Announce(),
        Send(SendReason.UNSENT, 1),
    ]
    groups = grouped([due(step, key, 1.0) for step, key in zip(steps, KEYS, strict=True)], orders, 25)
    assert [[entry.submission.partition for entry in group] for group in groups] == [
        ["p0", "p1"],
        ["p2"],
        ["p3", "p4"],
        ["p5"],
    ]


def test_partitions_of_two_dimensions_have_runs_of_their_own() -> None:
    days = dg.StaticPartitionsDefinition(["a", "b"])
    both = dg.MultiPartitionsDefinition({"x": days, "y": days})
    order = PartitionOrder(both, dg.DagsterInstance.ephemeral())
    assert "a|b" in order and "a|c" not in order
    assert not order.follows("a|b", "a|a")
