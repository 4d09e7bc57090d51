"""Ticks of the sensor, one after the other, and the runs they ask for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from batch_assets import build_message_batch_sensor
from batch_assets.cli import main
from batch_assets.core.batches.poll import poll
from batch_assets.core.ledger import leases, submissions
from batch_assets.core.ledger.downloads import collecting_name
from batch_assets.core.ledger.rounds import ROUND_SECONDS, LastRound
from batch_assets.core.open_root import open_root
from batch_assets.dagster.rounds import name_of
from batch_assets.dagster.sensors import removed
from batch_assets.dagster.sensors.runs import OpenRuns
from batch_assets.emulator import Emulator
from benchmarks.ticks import counting

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
SUBMISSION, ROUND = "batch_assets/submission", "batch_assets/round"


@dataclass
class Location:
    """A code location that ticks on demand."""

    assets: list[dg.AssetsDefinition]
    instance: dg.DagsterInstance
    events: list[Any] = field(default_factory=list)
    cursor: str | None = None

    def materialize(self, *stages: str, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        selection = [asset.key for asset in self.assets if not stages or asset.key.path[-1] in stages]
        return dg.materialize(
            self.assets, selection=selection, instance=self.instance, tags=tags, raise_on_error=False
        )

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        sensor = build_message_batch_sensor()
        definitions = dg.Definitions(assets=self.assets, sensors=[sensor])
        with dg.build_sensor_context(
            instance=self.instance, repository_def=definitions.get_repository_def(), cursor=self.cursor
        ) as context:
            data = sensor.evaluate_tick(context)
        self.events += data.asset_events
        self.cursor = data.cursor or self.cursor
        return list(data.run_requests or []), data.skip_message or ""

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        stages = [key.path[-1] for key in request.asset_selection or []]
        return self.materialize(*stages, tags=request.tags)


@pytest.fixture
def location(make_assets: MakeAssets, instance: dg.DagsterInstance) -> Location:
    return Location(make_assets(), instance)


def ledger(statement: str) -> list[Any]:
    with open_root() as root, root.ledger.write() as tx:
        result = tx.execute(text(statement))
        return list(result) if result.returns_rows else []


def make_batches_due() -> None:
    """Make open batches due: a tick polls a fresh one only now and then."""
    ledger("update batch set next_poll_at = 0, next_download_at = 0")


def test_no_ledger_no_work(location: Location, tmp_path: Path) -> None:
    assert location.tick() == ([], "Nothing has been submitted.")
    assert not (tmp_path / "root").exists()


def test_materializing_requests_alone_spends_no_money(location: Location, emulator: Emulator) -> None:
    location.materialize("requests")
    requests, skip_message = location.tick()
    assert requests == []
    assert "materialize greetings/batches to send them" in skip_message
    assert emulator.requests() == {}


def test_a_rate_limit_is_what_the_tick_says_it_waits_for(location: Location, emulator: Emulator) -> None:
    refusal = {"status": 429, "headers": {"retry-after": "120"}}
    emulator.faults([{"match": {"method": "POST", "path": "/v1/messages/batches"}, "action": refusal}])
    location.materialize()
    requested, skip_message = location.tick()
    assert requested == []
    limit = "greetings waits for the API, which asked to send no more for now, the next try is in "
    assert re.fullmatch(re.escape(limit) + r"\d+ (s|min)", skip_message)


def test_a_round_is_asked_for_once_collects_and_is_closed(location: Location, emulator: Emulator) -> None:
    location.materialize()
    requested, skip_message = location.tick()
    assert requested == []
    assert re.fullmatch(r"1 of 1 batch in progress, oldest \d+ s, next look in 1 s", skip_message)
    emulator.end_batches()
    make_batches_due()
    (request,), _ = location.tick()
    assert request.run_key == f"{request.tags[SUBMISSION]}:{request.tags[ROUND]}"
    assert request.tags[ROUND].startswith("1:")
    assert [key.path for key in request.asset_selection or []] == [["greetings", "results"]]
    assert request.tags["dagster/max_runtime"] == "3600"
    (observation,) = location.events
    assert observation.asset_key.path == ["greetings", "batches"]
    assert observation.metadata["batch_assets/succeeded"].value == 4
    assert location.tick() == ([], "greetings: a run is queued or in progress")

    result = location.run(request)
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [
        dg.AssetKey(["greetings", "results"])
    ]
    assert [row.state for row in ledger("select state from round")] == ["closed"]
    calls = emulator.requests()
    assert location.tick() == ([], "No batch is open.")
    assert emulator.requests() == calls
    assert len(location.events) == 1


def test_what_a_run_is_sending_is_left_to_it(location: Location, emulator: Emulator) -> None:
    location.materialize("requests")
    (submission,) = ledger("select id from submission")
    with open_root() as root:
        with root.ledger.write() as tx:
            submissions.began(tx, submission.id)
        with leases.mark(root.ledger, submissions.sending_name(submission.id), "greetings"):
            assert location.tick()[0] == []
    (request,), _ = location.tick()
    assert [key.path[-1] for key in request.asset_selection or []] == ["batches", "results"]


def test_failed_requests_are_sent_again(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.expire_batches()
    make_batches_due()
    (first,), _ = location.tick()
    assert location.run(first).get_asset_materialization_events() == []
    (second,), _ = location.tick()
    assert str(second.run_key).startswith(f"{second.tags[SUBMISSION]}:2:")
    assert [key.path[-1] for key in second.asset_selection or []] == ["batches", "results"]
    location.run(second)
    assert len(emulator.log()) == 2
    assert [row.state for row in ledger("select state from round order by number")] == ["closed", "closed"]


def test_a_failing_round_is_closed_and_followed_more_slowly(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.expire_batches()
    make_batches_due()
    (first,), _ = location.tick()
    location.run(first)
    emulator.stop()
    (second,), _ = location.tick()
    assert not location.run(second).success
    assert [row.state for row in ledger("select state from round order by number")] == ["closed", "closed"]
    assert "the next run begins in" in location.tick()[1]
    ledger("update round set opened_at = opened_at - 61")
    assert len(location.tick()[0]) == 1


def test_a_round_whose_run_never_began_is_given_up(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    (lost,), _ = location.tick()
    assert location.tick()[0] == []
    ledger("update round set opened_at = opened_at - 121")
    (request,), _ = location.tick()
    assert str(request.run_key).startswith(f"{lost.tags[SUBMISSION]}:2:")


def test_a_round_whose_run_dagster_saw_end_is_over(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    (killed,), _ = location.tick()
    run = location.instance.create_run_for_job(
        dg.Definitions(assets=location.assets).resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.CANCELED,
        tags=dict(killed.tags),
    )
    assert run.is_finished
    assert len(location.tick()[0]) == 1


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_round_stays_open_while_its_run_is_unfinished(
    location: Location, emulator: Emulator, status: dg.DagsterRunStatus
) -> None:
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    (request,), _ = location.tick()
    assert int(request.tags["dagster/max_runtime"]) < ROUND_SECONDS
    ledger("update round set opened_at = opened_at - 90000, until = until - 90000")
    ((opened_at,),) = ledger("select opened_at from round")
    location.instance.create_run_for_job(
        dg.Definitions(assets=location.assets).resolve_implicit_global_asset_job_def(),
        status=status,
        tags={**request.tags, ROUND: name_of(1, opened_at)},
    )
    assert location.tick() == ([], "greetings: a run is queued or in progress")


def test_rounds_after_the_ledger_was_made_again_are_new_to_dagster(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    (before,), _ = location.tick()
    location.instance.create_run_for_job(
        dg.Definitions(assets=location.assets).resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.FAILURE,
        tags=dict(before.tags),
    )
    # The rebuilt ledger knows no rounds. The next one is opened in another second than the old one.
    ledger("delete from round")
    while time.time() < int(before.tags[ROUND].split(":")[1]) + 1:
        time.sleep(0.05)
    (after,), _ = location.tick()
    assert after.tags[ROUND].startswith("1:")
    assert after.run_key != before.run_key
    # It is not over because the earlier run is, and that run does not close it.
    assert location.tick() == ([], "greetings: a run is queued or in progress")
    assert location.run(before).success
    assert [row.state for row in ledger("select state from round")] == ["open"]
    assert location.run(after).success
    assert [row.state for row in ledger("select state from round")] == ["closed"]


def status() -> str:
    """What `batch-assets status` shows about the same root."""
    return CliRunner().invoke(main, ["status"]).output


@pytest.mark.parametrize("code", [404, 500])
def test_both_faces_offer_to_cancel_a_batch_only_if_the_api_refuses_its_results(
    location: Location, emulator: Emulator, code: int
) -> None:
    location.materialize()
    (batch,) = ledger("select id from batch")
    emulator.end_batches()
    emulator.faults([{"match": {"path": f"/v1/messages/batches/{batch.id}/results"}, "action": {"status": code}}])
    make_batches_due()
    (request,), _ = location.tick()
    location.run(request)
    shown, reason = status(), location.tick()[1]
    assert shown.count("It has failed for ") == 1
    assert "waits for results that could not be downloaded" in reason
    assert shown.count(f"If {batch.id} was deleted at the API: `batch-assets cancel {batch.id}`") == (code == 404)
    assert reason.count(f"{batch.id}: the API refuses its results.") == (code == 404)
    assert reason.count(f"the job greetings_cancel with `batch_id: {batch.id}` in its config") == (code == 404)


def test_each_face_has_its_remedy_for_a_batch_that_the_api_does_not_know(
    location: Location, emulator: Emulator
) -> None:
    location.materialize()
    (batch,) = ledger("select id from batch")
    emulator.faults([{"match": {"method": "GET"}, "action": {"status": 404}}])
    make_batches_due()
    location.tick()
    ledger("update batch set missing_since = missing_since - 400, next_poll_at = 0")
    reason = location.tick()[1]
    assert reason.count(f"{batch.id}: the API answers 404") == 1
    assert reason.count(f"the job greetings_cancel with `batch_id: {batch.id}` in its config") == 1
    assert "`batch-assets" not in reason and "batch-assets run" not in reason
    assert f"right key is back. If {batch.id} was deleted at the API: `batch-assets cancel {batch.id}`" in status()


def test_each_face_has_its_remedy_for_a_lost_request_file(
    location: Location, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.faults([{"match": {"method": "POST", "times": 1}, "action": {"error_mix": {"expired": 1.0}}}])
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    (collect,), _ = location.tick()
    location.run(collect)
    (part,) = (tmp_path / "root").rglob("part-*.jsonl")
    part.unlink()
    (send_again,), _ = location.tick()
    assert location.run(send_again).success
    reason = location.tick()[1]
    assert "part-00000.jsonl is gone" in reason and "Restore it from a backup" in reason
    assert "or build the requests again. To build requests again, materialize greetings/requests" in reason
    assert "`batch-assets" not in reason and "batch-assets run" not in reason
    assert "To build requests again: batch-assets run greetings\n" in status()


def test_a_batch_that_is_paid_twice_is_reported(location: Location, emulator: Emulator) -> None:
    location.materialize()
    assert "paid twice" not in location.tick()[1]
    (batch,) = ledger("select id from batch")
    ledger("update batch set paid_twice = 1")
    skip_message = location.tick()[1]
    assert f"1 batch is paid twice, see batch-assets status greetings: {batch.id}" in skip_message
    result = location.materialize("batches")
    (event,) = result.get_asset_materialization_events()
    assert event.step_materialization_data.materialization.metadata["batch_assets/paid_twice"].value == 1
    (observed, *_) = [event for event in result.all_events if event.is_asset_observation]
    assert observed.asset_observation_data.asset_observation.metadata["batch_assets/paid_twice"].value == 1


def test_a_run_that_outlived_its_time_limit_is_given_up() -> None:
    now = datetime.now(UTC)
    last = LastRound(1, True, 1700000000.0, "s", 1)
    run = dg.DagsterRun("job", status=dg.DagsterRunStatus.STARTED, tags={SUBMISSION: "s", ROUND: "1:1700000000"})
    ages = {ROUND_SECONDS - 60: False, ROUND_SECONDS + 60: True}
    for age, over in ages.items():
        record = dg.RunRecord(1, run, now, now, start_time=now.timestamp() - age)
        assert OpenRuns([record]).is_over(last, age) is over


def test_a_run_that_waited_its_turn_does_not_announce_twice(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    (queued,), _ = location.tick()
    by_hand = location.materialize("results")
    assert len(by_hand.get_asset_materialization_events()) == 1
    result = location.run(queued)
    assert result.success
    assert result.get_asset_materialization_events() == []
    assert location.tick() == ([], "No batch is open.")
    assert len(location.materialize("results").get_asset_materialization_events()) == 1


def test_no_run_is_asked_for_while_a_users_run_brings_the_results(location: Location, emulator: Emulator) -> None:
    location.materialize()
    emulator.end_batches()
    with open_root() as root:
        assert poll(root, now=True).problems == []
        with leases.mark(root.ledger, collecting_name("greetings"), "greetings"):
            assert location.tick()[0] == []
    assert len(location.tick()[0]) == 1


def test_the_message_names_replaced_batches_and_partitions(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    first = Location(make_assets(), instance)
    first.materialize()
    words = {
        "model": "claude-haiku-5-5",
        "max_tokens": 60,
        "messages": [{"role": "user", "content": "{{ text }}"}],
    }
    second = Location(make_assets(params=words), instance)
    second.materialize()
    assert re.match(r"2 of 2 batches in progress, oldest \d+ s, next look in ", second.tick()[1])

    days = dg.StaticPartitionsDefinition(["one", "two"])
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days))
        for asset in make_assets("daily")
    ]
    for partition, of in (("one", "1 request file of one"), ("two", "1 request file of 2 partitions")):
        dg.materialize(assets, selection=[assets[0].key], instance=instance, partition_key=partition)
        skip_message, _, about_greetings = Location(assets, instance).tick()[1].partition("; ")
        assert skip_message == f"{of} is ready: materialize daily/batches to send them", "they share it"
        assert about_greetings.startswith("greetings: 2 batches are left, and no pipeline of this code location")
    output = CliRunner().invoke(main, ["status", "daily"]).output
    assert "materialize daily/batches, or: batch-assets run daily --partition two\n" in output


def test_without_an_api_a_tick_names_what_to_set(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.materialize()
    make_batches_due()
    monkeypatch.delenv("BATCH_ASSETS_EMULATOR")
    requests, skip_message = location.tick()
    assert requests == []
    assert skip_message.count("ANTHROPIC_API_KEY") == 1
    assert "1 of 1 batch in progress" in skip_message


def test_without_an_api_no_run_is_asked_for(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.materialize()
    emulator.end_batches()
    with open_root() as root:
        assert poll(root, now=True).problems == []
    with monkeypatch.context() as away:
        away.delenv("BATCH_ASSETS_EMULATOR")
        requests, skip_message = location.tick()
        assert requests == []
        assert skip_message.count("ANTHROPIC_API_KEY") == 1
    assert len(location.tick()[0]) == 1


def test_another_endpoint_is_refused_with_a_message(
    location: Location, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    location.materialize()
    make_batches_due()
    monkeypatch.setenv("BATCH_ASSETS_EMULATOR", "http://127.0.0.1:9")
    assert "This root belongs to" in location.tick()[1]


def test_an_unavailable_api_does_not_fail_the_tick(location: Location, emulator: Emulator) -> None:
    location.materialize()
    make_batches_due()
    emulator.stop()
    requests, skip_message = location.tick()
    assert requests == []
    assert "no connection" in skip_message
    assert "1 of 1 batch in progress" in skip_message


def test_a_damaged_ledger_is_reported_by_the_tick(location: Location, emulator: Emulator, tmp_path: Path) -> None:
    location.materialize()
    path = tmp_path / "root" / "ledger.db"
    path.write_bytes(b"no database " * 500)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    requests, skip_message = location.tick()
    assert requests == []
    assert f"the ledger {path} is damaged" in skip_message
    path.unlink()  # as the message advises
    (request,), _ = location.tick()
    assert [key.path[-1] for key in request.asset_selection or []] == ["results"]
    assert len(emulator.log()) == 1


def test_pipelines_of_other_code_locations_are_left_alone(
    location: Location, emulator: Emulator, make_assets: MakeAssets
) -> None:
    location.materialize()
    emulator.end_batches()
    make_batches_due()
    other = Location(make_assets("farewells"), location.instance)
    assert other.tick()[0] == []
    assert len(location.tick()[0]) == 1


@pytest.mark.parametrize("ago", [0.0, 86400.0])
def test_a_tick_needs_no_more_statements_for_many_finished_partitions(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path, ago: float
) -> None:
    emulator.settings(latency=0.0)
    names = [f"part-{number:02}" for number in range(12)]
    for name in names:
        (tmp_path / f"{name}.csv").write_text(f"id,text\n1,of {name}\n")
    dataset, static = {"path": "{partition}.csv", "key": "id"}, {"static": names}
    location = Location(make_assets(dataset=dataset, partitions=static), instance)
    statements = []
    for first, last in ((0, 1), (2, 11)):
        ends = {
            "dagster/asset_partition_range_start": names[first],
            "dagster/asset_partition_range_end": names[last],
        }
        assert location.materialize(tags=ends).success
        ledger(f"update submission set final_at = final_at - {ago}")
        location.tick()  # the progress of the batches is reported once
        with counting() as seen:
            assert location.tick() == ([], "No batch is open.")
        assert ledger("select count(*) from submission where announced_at is not null") == [(last + 1,)]
        statements.append(seen)
    assert len(statements[0]) > 5
    assert len(statements[0]) == len(statements[1])


def test_a_submission_that_the_ledger_does_not_know_is_named_by_two_ticks_in_a_row(
    location: Location, tmp_path: Path
) -> None:
    location.materialize("requests")
    (unknown,) = tmp_path.glob("**/greetings/requests")
    unknown /= "29991231T000000-abcdef01"
    unknown.mkdir()
    (unknown / "manifest.json").touch()
    assert unknown.name not in location.tick()[1]  # its build may be about to register it
    text = f"{unknown.name} under the root, so it may have been restored from a backup"
    assert text in location.tick()[1] and text in location.tick()[1]
    (unknown / "manifest.json").unlink()
    assert text not in location.tick()[1]


def test_the_key_of_a_dynamic_partition_is_added_with_a_run_and_not_during_one(
    make_assets: MakeAssets, kept: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "de.csv").write_text("id,text\n1,hello\n")
    dataset = {"path": "{partition}.csv", "key": "id"}
    location = Location(make_assets(dataset=dataset, partitions={"dynamic": True}), kept)
    kept.add_dynamic_partitions("greetings", ["de"])
    dg.materialize(location.assets, instance=kept, partition_key="de")
    emulator.end_batches()
    make_batches_due()
    kept.delete_dynamic_partition("greetings", "de")  # as if it had been run outside of Dagster
    with dg.partition_loading_context(dynamic_partitions_store=kept):  # as the daemon does
        (request,), _ = location.tick()
    assert request.partition_key == "de"
    assert kept.get_dynamic_partitions("greetings") == ["de"]
    kept.delete_dynamic_partition("greetings", "de")
    assert location.tick() == ([], "greetings de: a run is queued or in progress")
    assert kept.get_dynamic_partitions("greetings") == []


def tick_to_the_end(location: Location) -> None:
    """Tick, and wait for the thread that works for removed pipelines; before, for that of an earlier tick."""
    _wait_for_the_thread()
    location.tick()
    _wait_for_the_thread()


def _wait_for_the_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "removed pipelines":
            thread.join()


def test_a_pipeline_that_the_project_no_longer_has_is_named_and_collected(
    location: Location, make_assets: MakeAssets, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.settings(latency=3600)
    location.materialize("requests", "batches")
    (name,) = {asset.key.path[0] for asset in location.assets}
    location.assets = [dg.AssetsDefinition.from_op(dg.op(name="another")(lambda: 1))]
    _, skipped = location.tick()
    assert f"{name}: 1 batch is left, and no pipeline of this code location has this name" in skipped
    assert f"batch-assets rename {name} NEW" in skipped
    ledger("update batch set next_poll_at = next_poll_at + 1000, created_at = created_at - 27 * 86400")
    assert "are lost in" in location.tick()[1]
    emulator.end_batches()
    ledger("update batch set next_poll_at = 0")
    monkeypatch.setattr(removed, "PATIENCE_SECONDS", 0.0)
    tick_to_the_end(location)
    assert ledger("select state from batch") == [("collected",)]
    assert ledger("select final_at is not null from submission") == [(1,)]
    _, skipped = location.tick()
    assert "No batch is open" in skipped


def test_a_batch_whose_reply_was_lost_is_found_also_for_a_removed_pipeline(
    location: Location, emulator: Emulator
) -> None:
    emulator.settings(latency=3600)
    batches = {"path": "/v1/messages/batches"}
    emulator.faults(
        [
            {"match": {**batches, "method": "POST", "times": 1}, "action": {"drop": "after_commit"}},
            {"match": {**batches, "method": "GET"}, "action": {"hide_from_list": 60}},
        ]
    )
    location.materialize("requests", "batches")
    assert ledger("select state from request_file") == [("unresolved",)]
    emulator.clock(advance=61)
    location.assets = [dg.AssetsDefinition.from_op(dg.op(name="another")(lambda: 1))]
    tick_to_the_end(location)
    assert ledger("select state from request_file") == [("submitted",)]
