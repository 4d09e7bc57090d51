"""The checks of results, run by Dagster on valid and on invalid tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets import build_message_batch_checks
from batch_assets.core.ledger import submissions
from batch_assets.core.open_root import open_root
from batch_assets.dagster.rounds import tags_for
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
CREATE = {"method": "POST", "path": "/v1/messages/batches"}
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["glad", "sad"]}, "why": {"type": "string"}},
    "required": ["mood", "why"],
    "additionalProperties": False,
}
ALWAYS = [
    *("answers_are_whole", "columns_match", "every_row_once", "failed_rows_are_few", "model_does_not_retire_soon"),
    "no_row_is_left_pending",
]
TYPED = ["enum_values_are_expected", "invalid_outputs_are_few"]


@pytest.fixture
def quick(emulator: Emulator) -> Emulator:
    emulator.settings(latency=0.0)
    return emulator


def run(
    assets: list[Any], instance: dg.DagsterInstance, *more: Any, partition_key: str | None = None
) -> dg.ExecuteInProcessResult:
    checks = [check for check in build_message_batch_checks(assets) if "deadline" not in check.node_def.name]
    return dg.materialize(
        [*assets, *checks, *more], instance=instance, partition_key=partition_key, raise_on_error=False
    )


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {
        evaluation.check_name: evaluation
        for evaluation in result.get_asset_check_evaluations()
        if "in_time" not in evaluation.check_name
    }


def checked(assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    """Run only the checks, like the button "Execute"."""
    location = dg.Definitions(assets=assets, asset_checks=build_message_batch_checks(assets))
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(assets[-1]))
    location = dg.Definitions.merge(location, dg.Definitions(jobs=[job]))
    result = location.resolve_job_def("checks").execute_in_process(instance=instance, raise_on_error=False)
    return evaluations(result)


def change(tmp_path: Path, how: Callable[[pa.Table], pa.Table]) -> None:
    """Spoil the table, as another program might."""
    path = tmp_path / "root" / "greetings" / "results" / "results.parquet"
    pq.write_table(how(pq.read_table(path)), path)


def test_a_valid_table_passes_all_checks(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    result = run(make_assets(output_schema=SCHEMA, max_failed=0.2), instance)
    checks = evaluations(result)
    assert sorted(checks) == sorted(ALWAYS + TYPED)
    assert all(check.passed for check in checks.values()), {
        name: check.description for name, check in checks.items()
    }
    assert {name: check.description for name, check in checks.items() if check.description} == {
        "failed_rows_are_few": "1 of 5 rows failed (20%; max_failed is 20%): 1 rejected\n\n"
        "- 1 row: empty\\_prompt: params.messages\\[0\\].content: the text is empty"
    }
    assert {name for name, check in checks.items() if check.blocking} == {"failed_rows_are_few"}
    (event,) = [one for one in result.get_asset_materialization_events() if one.asset_key.path[-1] == "results"]
    chart = str(event.materialization.metadata["batch_assets/values:mood"].value)
    assert [line.split(" | ")[0] for line in chart.splitlines()[2:4]] == ["| glad", "| sad"]
    assert chart.endswith("\n\n1 row without an answer.")
    assert sorted(evaluations(run(make_assets("others"), instance))) == ALWAYS


def test_too_many_failed_rows_keep_downstream_assets_from_running(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    quick.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    assets = make_assets(max_failed=0.5)
    ran = []

    @dg.asset(deps=[assets[-1].key])
    def report() -> None:
        ran.append(1)

    result = run(assets, instance, report)
    (failed,) = [check for check in evaluations(result).values() if not check.passed]
    assert (failed.check_name, failed.severity) == ("failed_rows_are_few", dg.AssetCheckSeverity.ERROR)
    summary, _, causes = str(failed.description).partition("\n\n")
    assert summary.endswith("max_failed is 50%): 4 errored, 1 rejected")
    assert [cause.partition(": ")[0] for cause in causes.splitlines()] == ["- 4 rows", "- 1 row"]
    assert not ran
    assert not result.success
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert failure.step_failure_data.user_failure_data is not None
    lines = str(failure.step_failure_data.user_failure_data.description).splitlines()
    assert lines[0] == f"The blocking asset check failed_rows_are_few failed: {summary}"
    assert [line.split(": ")[:2] for line in lines[1:3]] == [
        ["4 rows", "permission_error"],
        ["1 row", "empty_prompt"],
    ]
    assert all(len(line.split(": ")) > 2 for line in lines[1:3])
    for remedy in ("greetings_retry_failed", "materialize greetings/requests", "raise max_failed"):
        assert remedy in "\n".join(lines[3:])
    assert instance.get_latest_materialization_event(assets[-1].key) is not None


def test_while_a_new_table_waits_the_checks_are_those_of_the_complete_one(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    ran = []

    def report(assets: list[dg.AssetsDefinition]) -> dg.AssetsDefinition:
        @dg.asset(deps=[assets[-1].key], name="report")
        def report() -> None:
            ran.append(len(pq.read_table(tmp_path / "root" / "greetings" / "results")))

        return report

    assets = make_assets(max_failed=0.2)
    assert run(assets, instance, report(assets)).success
    quick.settings(latency=3600.0)
    edited = make_assets(rows=6, max_failed=0.2, output_schema=SCHEMA)
    result = run(edited, instance, report(edited))
    assert result.success
    assert ran == [5], "nothing downstream starts"
    (record,) = instance.fetch_observations(edited[-1].key, limit=2).records
    assert record.asset_observation is not None
    metadata = record.asset_observation.metadata
    folder = tmp_path / "root" / "greetings"
    assert metadata["batch_assets/table"].value == str(folder / "results" / "results.parquet")
    assert metadata["batch_assets/waiting_table"].value == str(folder / "results_next" / "results.parquet")
    assert metadata["batch_assets/pending"].value == 6
    checks = evaluations(result)
    assert checks["every_row_once"].metadata["rows"].value == 5
    assert [name for name, check in checks.items() if not check.passed] == ["columns_match"]
    assert str(checks["columns_match"].description).endswith(
        "A newer table replaces this one when 6 rows of it are answered"
    )
    quick.end_batches()
    quick.settings(latency=0.0)
    result = run(edited, instance, report(edited))
    assert ran == [5, 7]
    checks = evaluations(result)
    assert checks["every_row_once"].metadata["rows"].value == 7
    assert checks["columns_match"].passed


def test_refused_answers_are_invalid_outputs(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    quick.faults([{"match": CREATE, "action": {"error_mix": {"refusal": 1.0}}}])
    result = run(make_assets(output_schema=SCHEMA, max_failed=1, max_invalid=0.5), instance)
    check = evaluations(result)["invalid_outputs_are_few"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(check.description).startswith("4 of 4 answers do not match the output schema (100%")
    assert result.success


def test_refused_and_truncated_answers_are_reported_without_a_schema(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    quick.faults([{"match": CREATE, "action": {"error_mix": {"refusal": 1.0}}}])
    result = run(make_assets(max_failed=1, max_invalid=0.5), instance)
    check = evaluations(result)["answers_are_whole"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == ("4 of 4 answers were refused or cut off (100%; max_invalid is 50%): 4 refusal")
    assert (check.metadata["stopped"].value, check.metadata["refusal"].value) == (4, 4)
    assert result.success


def test_a_valid_partition_does_not_hide_a_failed_one(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    days = dg.StaticPartitionsDefinition(["bad", "good"])
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days))
        for asset in make_assets(max_failed=0.5)
    ]

    def few_failed(partition: str) -> tuple[bool, dg.AssetCheckEvaluation]:
        result = run(assets, instance, partition_key=partition)
        return result.success, evaluations(result)["failed_rows_are_few"]

    quick.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    success, check = few_failed("bad")
    assert (success, check.passed, check.severity) == (False, False, dg.AssetCheckSeverity.ERROR)
    quick.reset_faults()
    (tmp_path / "greetings.csv").write_text("id,text\n1,other\n")
    success, check = few_failed("good")
    assert (success, check.passed, check.severity) == (True, False, dg.AssetCheckSeverity.WARN)
    assert str(check.description).startswith("bad: 5 of 5 rows failed")
    assert "good" not in str(check.description)
    assert "failed" not in check.metadata

    table = tmp_path / "root" / "greetings" / "results" / "partition=bad" / "results.parquet"
    table.write_bytes(b"spoiled")
    success, check = few_failed("good")
    assert (success, check.passed) == (True, False)
    assert str(check.description).startswith("bad: 5 of 5 rows failed"), "a run does not read the others' tables"
    success, check = few_failed("bad")  # now with the valid dataset
    assert (success, check.passed, check.description) == (True, True, None), "nothing is wrong"


def test_a_lost_or_duplicated_row_is_reported(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    assets = make_assets()
    run(assets, instance)
    for keep, problem in (
        ([0, 1, 3, 4], "4 rows of 5 in the dataset; 1 row is missing, such as 2"),
        (
            [0, 1, 1, 3, 4],
            "5 rows of 5 in the dataset; 1 row is missing, such as 2; 1 row is there more than once, such as 1",
        ),
        ([0, 2, 1, 3, 4], "5 rows of 5 in the dataset; the rows are in another order"),
    ):
        whole = pq.read_table(tmp_path / "root" / "greetings" / "results" / "results.parquet")
        change(tmp_path, lambda table, keep=keep: table.take(pa.array(keep)))  # type: ignore[misc]
        check = checked(assets, instance)["every_row_once"]
        assert not check.passed
        assert check.description == problem
        change(tmp_path, lambda _, whole=whole: whole)  # type: ignore[misc]
    assert checked(assets, instance)["every_row_once"].passed


def test_a_lost_row_far_into_the_table_is_reported(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    rows = 5000  # more than are compared at once
    assets = make_assets()
    lines = [f"{number},hello {number % 10}" for number in range(rows)]
    (tmp_path / "greetings.csv").write_text("\n".join(["id,text", *lines]) + "\n")
    run(assets, instance)
    whole = pq.read_table(tmp_path / "root" / "greetings" / "results" / "results.parquet")
    for lost in (4500, 4999, 4096):
        change(tmp_path, lambda _, lost=lost: pa.concat_tables([whole[:lost], whole[lost + 1 :]]))  # type: ignore[misc]
        check = checked(assets, instance)["every_row_once"]
        assert (check.passed, check.metadata["rows"].value) == (False, rows - 1)
        assert check.description == f"4,999 rows of 5,000 in the dataset; 1 row is missing, such as {lost}"


def test_unexpected_columns_pending_rows_and_values_are_reported(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, tmp_path: Path
) -> None:
    assets = make_assets(output_schema=SCHEMA, max_failed=1)
    run(assets, instance)

    def spoil(table: pa.Table) -> pa.Table:
        def replace(name: str, value: str) -> pa.Table:
            column = table.column(name).to_pylist()
            column[0] = value
            position = table.schema.get_field_index(name)
            return table.set_column(
                position, table.schema.field(name), pa.array(column, table.schema.field(name).type)
            )

        table = replace("error_type", "invalid_output")
        table = replace("error_message", "unexpected value 'cross' of mood")
        rows = table.column("result_type").to_pylist()
        rows[1] = "pending"
        table = table.set_column(table.schema.get_field_index("result_type"), "result_type", pa.array(rows))
        return table.rename_columns(["cause" if name == "why" else name for name in table.column_names])

    change(tmp_path, spoil)
    checks = checked(assets, instance)
    problems = {name: str(check.description) for name, check in checks.items() if not check.passed}
    assert sorted(problems) == [
        "columns_match",
        "enum_values_are_expected",
        "invalid_outputs_are_few",
        "no_row_is_left_pending",
    ]
    assert problems["columns_match"].startswith(
        "why is missing; cause is not expected. Materialize greetings/requests"
    )
    assert problems["enum_values_are_expected"] == (
        "1 answer has a value that is missing from its enum\n\n- 1 row: unexpected value 'cross' of mood"
    )
    assert problems["no_row_is_left_pending"] == "1 row is pending, and 0 request files will bring answers"
    assert str(checks["failed_rows_are_few"].description).startswith(
        "1 of 5 rows failed, and 1 is pending (20% fail if these go like the others; max_failed is 100%): "
        "1 rejected\n"
    )


def test_checks_without_a_table(make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator) -> None:
    checks = checked(make_assets(), instance)
    assert {str(check.description) for check in checks.values()} == {"There is no table yet."}


def second_run(
    assets: list[Any], instance: dg.DagsterInstance, *more: dg.AssetsDefinition
) -> dg.ExecuteInProcessResult:
    """The run that the sensor asked for, while another one brought the same results back."""
    with open_root() as root, root.ledger.read() as tx:
        (submission,) = submissions.all_newest(tx)
    checks = build_message_batch_checks(assets)
    return dg.materialize(
        [*assets, *checks, *more],
        selection=dg.AssetSelection.assets(assets[-1]),  # and its checks, as the sensor requests them
        instance=instance,
        tags=tags_for(submission.id, "1:1"),
        raise_on_error=False,
    )


def newest(instance: dg.DagsterInstance, asset: dg.AssetsDefinition) -> dict[str, tuple[str, str]]:
    """What Dagster's UI shows of each check by name: its status and its run."""
    keys = [dg.AssetCheckKey(asset.key, name) for name in [*ALWAYS, "results_are_collected_in_time", "own"]]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {key.name: (record.status.value, record.run_id) for key, record in records.items()}


@pytest.mark.parametrize(("most", "status"), [(1, "SUCCEEDED"), (0, "FAILED")])
def test_a_run_that_comes_second_does_not_leave_the_checks_skipped(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator, most: float, status: str
) -> None:
    assets = make_assets(max_failed=most)
    first = run(assets, instance)
    assert len(first.asset_materializations_for_node("greetings__results")) == 1
    second = second_run(assets, instance)
    assert second.success
    assert second.get_asset_materialization_events() == []
    seen = newest(instance, assets[-1])
    assert sorted(seen) == sorted([*ALWAYS, "results_are_collected_in_time"])
    assert {run_id for _, run_id in seen.values()} == {second.run_id}
    assert seen.pop("failed_rows_are_few")[0] == status
    assert {status for status, _ in seen.values()} == {"SUCCEEDED"}
    assert (
        evaluations(second)["failed_rows_are_few"].description
        == evaluations(first)["failed_rows_are_few"].description
    )


def test_with_a_users_own_check_the_second_run_materializes(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    assets = make_assets(max_failed=1)
    run(assets, instance)

    @dg.asset_check(asset=assets[-1].key)
    def own() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    second = second_run(assets, instance, own)
    assert len(second.get_asset_materialization_events()) == 1
    assert {status for status, _ in newest(instance, assets[-1]).values()} == {"SUCCEEDED"}
    assert newest(instance, assets[-1])["own"] == ("SUCCEEDED", second.run_id)


def test_a_run_that_does_not_change_the_table_leaves_the_checks_unchanged(
    make_assets: MakeAssets, instance: dg.DagsterInstance, quick: Emulator
) -> None:
    """Asking for the price of a refresh, and a refresh until it is complete."""
    assets = make_assets(max_failed=1)
    everything = [*assets, *build_message_batch_checks(assets)]

    def refresh(**config: bool) -> str:
        config = {"ops": {"greetings__requests": {"config": {"refresh": True, **config}}}}  # type: ignore[dict-item]
        result = dg.materialize(everything, instance=instance, run_config=config)
        assert not [key for key in result.get_asset_materialization_events() if key.asset_key == assets[-1].key]
        return result.run_id

    run_id = refresh()
    assert newest(instance, assets[-1]).keys() == {"results_are_collected_in_time", *ALWAYS}
    assert {status for status, _ in newest(instance, assets[-1]).values()} <= {"PLANNED", "SUCCEEDED"}
    assert newest(instance, assets[-1])["failed_rows_are_few"] == ("PLANNED", run_id), "there is no table yet"
    run(assets, instance)
    run_id = refresh()
    assert set(newest(instance, assets[-1]).values()) == {("SUCCEEDED", run_id)}
    quick.settings(latency=3600.0)
    begun = refresh(confirm=True)
    assert set(newest(instance, assets[-1]).values()) == {("SUCCEEDED", begun)}


def test_rows_answered_by_another_partitions_run_are_not_left_pending(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    days = dg.StaticPartitionsDefinition(["one", "two"])
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days))
        for asset in make_assets(max_failed=0.5)
    ]
    for partition in ("one", "two"):
        assert run(assets, instance, partition_key=partition).success
    emulator.end_batches()
    check = evaluations(run(assets, instance, partition_key="one"))["no_row_is_left_pending"]
    assert (check.passed, check.description) == (True, None)
