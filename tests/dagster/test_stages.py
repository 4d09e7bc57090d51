"""The three steps, run by Dagster in this process against a real emulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import sqlalchemy as sa

from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]


def run(
    assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, *stages: str
) -> dg.ExecuteInProcessResult:
    selection = [asset.key for asset in assets if not stages or asset.key.path[-1] in stages]
    return dg.materialize(assets, selection=selection, instance=instance, raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.path[-1]: {key: value.value for key, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def observed(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.path[-1]: {
            key: value.value for key, value in event.asset_observation_data.asset_observation.metadata.items()
        }
        for event in result.get_asset_observation_events()
        if event.asset_key is not None
    }


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    data = event.step_failure_data
    return f"{data.user_failure_data.description if data.user_failure_data else data.error}"


def test_everything_is_green_while_batches_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    result = run(make_assets(), instance)
    assert result.success
    events = materialized(result)
    assert set(events) == {"requests", "batches"}
    assert events["requests"]["dagster/row_count"] == 5
    assert events["requests"]["batch_assets/rejected"] == 1
    assert events["requests"]["batch_assets/new"] == 4
    assert "| 99 | empty" in events["requests"]["batch_assets/rejected_rows"].replace("\\", "")
    preview = events["requests"]["batch_assets/preview"]
    assert preview.startswith("```yaml\nmodel: ") and "content: hello greetings" in preview, preview
    assert len(events["batches"]["batch_assets/batch_ids"]) == 1
    assert observed(result)["batches"]["batch_assets/processing"] == 4
    assert observed(result)["results"]["batch_assets/pending"] == 4


def test_a_column_that_one_value_makes_text_is_shown_by_the_first_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assets = make_assets()
    rows = tmp_path / "greetings.csv"
    rows.write_text("id,text,stars\n1,a,5\n2,b,4\n3,c,n/a\n")
    first, second = (materialized(run(assets, instance))["requests"] for _ in range(2))
    shown = first["batch_assets/mixed_columns"].replace("\\", "").splitlines()[2]
    assert shown.startswith("| stars | whole numbers | 1 of 3 | 'n/a' | ")
    assert shown.endswith("greetings.csv, line 4 |")
    assert "batch_assets/mixed_columns" not in second


@pytest.mark.parametrize(("kind", "key"), [("refusal", "refused_answers"), ("max_tokens", "truncated_answers")])
def test_answers_that_were_refused_or_cut_off_are_counted(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, kind: str, key: str
) -> None:
    emulator.settings(latency=0.0)
    create = {"method": "POST", "path": "/v1/messages/batches"}
    emulator.faults([{"match": create, "action": {"error_mix": {kind: 1.0}}}])
    metadata = materialized(run(make_assets(), instance))["results"]
    counted = {name: value for name, value in metadata.items() if name.endswith("_answers")}
    shown = counted.pop("batch_assets/unusable_answers")
    assert counted == {f"batch_assets/{key}": 4}
    assert kind in shown.replace("\\_", "_"), "with the reason"


def test_complete_results_go_into_the_sink(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/warehouse.db"
    assets = make_assets(sink={"url": url, "table": "answers"})
    assert "batch_assets/sink" not in observed(run(assets, instance))["results"]
    emulator.end_batches()
    metadata = materialized(run(assets, instance, "results"))["results"]
    assert metadata["batch_assets/sink"] == "answers"
    stored = pd.read_sql("select id, result_type from answers order by id", url)
    assert stored["result_type"].tolist() == ["succeeded"] * 4 + ["rejected"]


def test_a_sink_that_refuses_fails_the_run_and_the_next_run_writes_it(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/warehouse.db")
    assets = make_assets(sink={"url": str(engine.url), "table": "answers"})
    run(assets, instance, "requests", "batches")
    with engine.begin() as connection:
        connection.execute(sa.text("create table answers (remark text)"))
    result = run(assets, instance, "results")
    assert "answers" in failure(result) and "The results are complete in Parquet" in failure(result)
    assert len(pd.read_parquet(tmp_path / "root" / "greetings" / "results")) == 5
    with engine.begin() as connection:
        connection.execute(sa.text("drop table answers"))
    assert materialized(run(assets, instance, "results"))["results"]["batch_assets/sink"] == "answers"
    engine.dispose()


def test_results_are_materialized_when_they_are_complete(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    assets = make_assets()
    run(assets, instance)
    emulator.end_batches()
    metadata = materialized(run(assets, instance, "results"))["results"]
    assert metadata["batch_assets/succeeded"] == 4
    assert metadata["batch_assets/rejected"] == 1
    assert metadata["dagster/row_count"] == 5
    assert metadata["batch_assets/output_tokens"] > 0
    assert metadata["batch_assets/cost_usd"] > 0
    assert [column.name for column in metadata["dagster/column_schema"].columns][:2] == ["id", "text"]
    assert "| 0 | succeeded |" in metadata["batch_assets/sample"]
    assert "| 99 | rejected |" in metadata["batch_assets/failed_rows"]
    table = pd.read_parquet(tmp_path / "root" / "greetings" / "results")
    assert table["result_type"].tolist() == ["succeeded"] * 4 + ["rejected"]


def test_nothing_is_sent_twice(make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator) -> None:
    assets = make_assets()
    run(assets, instance)
    emulator.end_batches()
    run(assets, instance, "results")
    again = run(assets, instance)
    assert again.success
    events = materialized(again)
    assert events["requests"]["batch_assets/reused"] == 4
    assert events["batches"]["batch_assets/submitted"] == 0
    assert events["results"]["batch_assets/succeeded"] == 4
    assert len(emulator.log()) == 1


def test_after_an_upgrade_answered_rows_are_sent_again_only_with_consent(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    """`a<b` was written as `a\\u003cb` by the first version of the rendering, whose manifests do not name it."""
    make_assets()
    dataset = {"path": "greetings.csv", "key": "id"}
    (tmp_path / "old.csv").write_text('id,text\n1,"""a\\u003cb"""\n')
    run(make_assets(dataset=dataset | {"path": "old.csv"}), instance)
    emulator.end_batches()
    run(make_assets(dataset=dataset | {"path": "old.csv"}), instance, "results")
    (path,) = (tmp_path / "root").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["rendering"]
    path.write_text(json.dumps(manifest))
    params = {
        "model": "claude-haiku-5-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "{{ text | tojson }}"}],
    }
    assets = make_assets(params=params, dataset=dataset | {"path": "new.csv"})
    (tmp_path / "new.csv").write_text("id,text\n1,a<b\n")
    problem = failure(run(assets, instance))
    assert "1 row that is answered or in flight would render differently" in problem
    assert problem.endswith(
        "To accept it, materialize greetings/requests with `accept_rendering: true` in the Launchpad"
    )
    assert len(emulator.log()) == 1
    config = {"ops": {assets[0].op.name: {"config": {"accept_rendering": True}}}}
    accepted = dg.materialize(assets, instance=instance, run_config=config, raise_on_error=False)
    assert materialized(accepted)["requests"]["batch_assets/new"] == 1
    assert len(emulator.log()) == 2


def test_without_an_api_batches_names_what_to_set(make_assets: MakeAssets, instance: dg.DagsterInstance) -> None:
    result = run(make_assets(), instance)
    assert not result.success
    assert set(materialized(result)) == {"requests"}
    assert "ANTHROPIC_API_KEY" in failure(result)
    assert "BATCH_ASSETS_EMULATOR" in failure(result)


def test_an_api_that_cannot_be_reached(
    make_assets: MakeAssets, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ASSETS_EMULATOR", "http://127.0.0.1:9")
    assert "cannot be reached" in failure(run(make_assets(), instance))


def test_a_mistake_in_the_dataset_is_reported_before_anything_is_sent(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets(dataset={"path": "greetings.csv", "key": "no_such_column"})
    result = run(assets, instance)
    assert materialized(result) == {}
    assert "no_such_column" in failure(result)
    assert emulator.log() == []


def test_batches_before_requests_is_reported(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assert "materialize greetings/requests first" in failure(run(make_assets(), instance, "batches"))


def test_a_refused_file_fails_the_run_after_the_others_were_sent(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": "no such thing"}}
    emulator.faults([{"match": {"method": "POST", "times": 1}, "action": {"status": 400, "body": refusal}}])
    result = run(make_assets(batching={"max_requests": 2}), instance)
    assert "no such thing" in failure(result)
    assert failure(result).endswith(". To build requests again, materialize greetings/requests")
    assert len(emulator.log()) == 1


def test_a_key_that_the_api_refuses_fails_the_run_with_the_asset_that_goes_on(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.faults([{"match": {"method": "POST"}, "action": {"status": 401}}])
    assert failure(run(make_assets(), instance)).endswith(
        "The request files are kept: fix this, then send them again. "
        "To send the request files, materialize greetings/batches"
    )


def test_a_stage_works_on_the_partition_of_its_run(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    days = dg.StaticPartitionsDefinition(["a/b", "c"])
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days)) for asset in make_assets()
    ]
    result = dg.materialize(assets, instance=instance, partition_key="a/b")
    assert materialized(result)["requests"]["dagster/partition_row_count"] == 5
    assert (tmp_path / "root" / "greetings" / "results" / "partition=a%2Fb" / "results.parquet").is_file()


def test_no_preview_or_beta_interface_of_dagster_is_used(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, recwarn: pytest.WarningsRecorder
) -> None:
    run(make_assets(), instance)
    ours = [w for w in recwarn if "batch_assets" in w.filename]
    assert [str(w.message) for w in ours if "Warning" in w.category.__name__] == []
