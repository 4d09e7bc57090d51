"""The examples of docs/customizing.md load and run, and do what the page says."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from batch_assets.cli.headless import run_pipeline
from batch_assets.cli.progress import make_console, watching
from batch_assets.core.open_root import open_root
from batch_assets.core.requests.report import AskAgain
from batch_assets.dagster.partitions import partitions_definition
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.emulator import Emulator
from tests.projects import Project, importable, whole_text

PAGE = (Path(__file__).parents[2] / "docs" / "customizing.md").read_text("utf-8")
MODULE, TOOLS, IN_PYTHON, RESOURCES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MOODS, REPLIES, TWO = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
ROWS = """\
id,text,language,tier,consent
1,<mood>good</mood><score>7</score>,en,gold,yes
2,<mood>bad</mood>,en,silver,yes
3,nothing to see,en,silver,yes
4,Ich habe nichts erlaubt,de,gold,no
"""


@pytest.fixture
def my_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The project that the page describes."""
    made = Project(tmp_path, "my_project")
    made.write("moods.py", MODULE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "moods.csv").write_text(ROWS)
    with importable(made, monkeypatch):
        yield made


def _assets(definitions: dg.Definitions) -> list[dg.AssetsDefinition]:
    return [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)]


def _results(tmp_path: Path, name: str) -> pd.DataFrame:
    results: pd.DataFrame = pd.read_parquet(tmp_path / "root" / name / "results").set_index("id")
    return results


def test_the_subclass_runs_in_dagster_and_on_the_command_line(
    my_project: Project, emulator: Emulator, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    definitions = my_project.load(MOODS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", dg.BetaWarning)
        warnings.simplefilter("error", dg.PreviewWarning)
        assert dg.materialize(_assets(definitions), instance=instance).success
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert specs.pop("message_batches/spend")
    assert set(specs) == {f"moods/review_moods/{stage}" for stage in ("requests", "batches", "results")}
    assert {tuple(spec.owners) for spec in specs.values()} == {("team:reviews",)}
    described = {column.name: column for column in specs["moods/review_moods/results"].metadata[
        "dagster/column_schema"
    ].columns}  # fmt: skip
    assert (described["mood"].type, described["mood"].description) == ("string", "good or bad")
    table = _results(tmp_path, "review_moods")
    assert table["mood"].fillna("").tolist() == ["good", "bad", "", ""]
    assert table["score"].fillna(-1).tolist() == [7, -1, -1, -1]
    assert table.loc[3, "error_message"] == "parse_message: there is no mood in the answer"
    assert table.loc[4, ["result_type", "error_type", "error_message"]].tolist() == [
        "rejected", "render_request", "the customer did not agree",
    ]  # fmt: skip
    assert table["response_model"].tolist()[:3] == ["claude-opus-5-5", "claude-haiku-5-5", "claude-haiku-5-5"]
    # The command line makes the same requests from the same rows, so none are left to send.
    sent = len(emulator.log())
    pipeline = pipelines_in(specs.values())["review_moods"].pipeline
    with open_root() as root, watching(make_console()) as watcher:
        results = run_pipeline(root, pipeline, "", watcher, again=AskAgain())
    assert (results.final, results.invalid_outputs, len(emulator.log())) == (True, 1, sent)
    assert _results(tmp_path, "review_moods")["mood"].fillna("").tolist() == ["good", "bad", "", ""]


def test_a_call_of_a_tool_gets_the_result_of_its_function(
    my_project: Project, emulator: Emulator, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    rule = {"match": {"method": "POST", "path": "/v1/messages/batches", "nth": 1}}
    emulator.faults([rule | {"action": {"error_mix": {"tool_use": 1.0}}}])
    my_project.write("support.py", TOOLS)
    pipeline = pipelines_in(my_project.load(REPLIES).resolve_all_asset_specs())["replies"].pipeline
    with open_root() as root, watching(make_console()) as watcher:
        assert run_pipeline(root, pipeline, "", watcher, again=AskAgain()).final
    table = _results(tmp_path, "replies")
    assert table["stop_reason"].tolist() == ["end_turn"] * 4
    assert table["response_text"].str.contains("there is no order").all()
    assert pipeline.hooks.tool_functions.keys() == {"look_up"}


def test_a_pipeline_in_python_has_the_same_hooks(
    my_project: Project, emulator: Emulator, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    (my_project.folder / "first_words.py").write_text(IN_PYTHON)
    import first_words  # type: ignore[import-not-found]

    sys.modules.pop("first_words")
    assert dg.materialize(first_words.assets, instance=instance).success
    table = _results(tmp_path, "first_words")
    assert table["result_type"].tolist() == ["succeeded"] * 3 + ["rejected"]
    assert [word.split()[0] for word in table["response_text"][:3]] == table["word"][:3].tolist()
    assert first_words.defs.resolve_job_def("first_words_refresh")


def test_a_subclass_without_columns_is_reported(my_project: Project) -> None:
    my_project.write("moods.py", MODULE.replace("output_columns", "_columns"))
    with pytest.raises(Exception) as caught:  # Dagster wraps it in errors of its own
        my_project.load(MOODS)
    error = whole_text(caught.value)
    assert "my_project/defs/greetings/defs.yaml: parse_message: its columns are not declared" in error


def test_two_pipelines_in_one_file_have_their_own_partitions_and_one_sensor(my_project: Project) -> None:
    loaded = my_project.load(TWO)
    pipelines = pipelines_in(loaded.resolve_all_asset_specs())
    assert set(pipelines) == {"reviews_by_day", "reviews_by_language"}
    assert pipelines["reviews_by_day"].partitions == dg.DailyPartitionsDefinition("2026-01-01")
    assert pipelines["reviews_by_language"].partitions == dg.StaticPartitionsDefinition(["de", "en"])
    assert partitions_definition(pipelines["reviews_by_day"].pipeline) == pipelines["reviews_by_day"].partitions
    sensors = [sensor.name for sensor in loaded.get_repository_def().sensor_defs]
    assert sensors.count("message_batches_sensor") == 1
    schedules = {schedule.name: schedule.cron_schedule for schedule in loaded.get_repository_def().schedule_defs}
    assert schedules == {"reviews_by_day_schedule": "0 2 * * *", "reviews_by_language_schedule": "0 6 * * 1"}
    jobs = {job.name for job in loaded.get_repository_def().get_all_jobs()}
    assert {"reviews_by_day_refresh", "reviews_by_language_refresh"} <= jobs


def test_a_pipeline_takes_the_root_of_the_resource_that_the_page_shows(
    my_project: Project, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    my_project.write("defs/resources.py", RESOURCES.replace("/srv/batches", str(tmp_path)))
    monkeypatch.setenv("EU_ANTHROPIC_API_KEY", "sk-ant-of-europe")
    loaded = my_project.load(MOODS + "  resource_key: eu\n")
    sensors = [sensor.name for sensor in loaded.get_repository_def().sensor_defs]
    assert sensors == ["message_batches_eu_sensor"]
    with dg.build_resources(dict(loaded.resources or {})) as built:
        settings = built.eu.settings()
    assert (settings.root, settings.base_url) == (str(tmp_path / "eu"), emulator.url)
