"""A pipeline file as a component: what loads, and how each mistake is reported."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.core import defs_module

from batch_assets import (
    MessageBatchComponent,
    MessageBatchResource,
    build_message_batch_assets,
    build_message_batch_sensor,
)
from batch_assets.cli.project import load_project
from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.dagster.component_blocks import KeptAttributes, mistake_in
from batch_assets.dagster.pipelines import pipelines_in, with_unique_names
from tests.projects import IN_PYTHON, PIPELINE, Project, whole_text

DOCS = Path(__file__).parents[2] / "docs"
# Early versions of Dagster 1.13 read defs.yaml only.
READS_DEFS_YML = '"defs.yml"' in inspect.getsource(defs_module)
WITH_SENSOR = f"""{IN_PYTHON}
from batch_assets import build_message_batch_sensor

sensor = build_message_batch_sensor()
"""


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    """The specs of the pipelines' assets."""
    every = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    return {name: spec for name, spec in every.items() if not name.startswith("message_batches/")}


def test_three_assets_in_a_chain(project: Project) -> None:
    loaded = specs(project.load(PIPELINE))
    assert set(loaded) == {"greetings/requests", "greetings/batches", "greetings/results"}
    assert [dep.asset_key.to_user_string() for dep in loaded["greetings/batches"].deps] == ["greetings/requests"]
    assert [dep.asset_key.to_user_string() for dep in loaded["greetings/results"].deps] == ["greetings/batches"]
    assert {spec.group_name for spec in loaded.values()} == {"greetings"}
    assert "{{ text }}" in (loaded["greetings/requests"].description or "")
    assert loaded["greetings/results"].kinds == {"parquet"}


def test_what_a_first_run_would_fail_with_is_a_warning_at_load(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings(text: str) -> list[str]:
        caplog.clear()
        project.load(text)
        return [record.getMessage() for record in caplog.records if record.name == "batch_assets"]

    (project.folder / "data").mkdir()
    (project.folder / "data" / "greetings.csv").write_text("id,text\n1,hello\n")
    assert warnings(PIPELINE) == []
    (path,) = warnings(PIPELINE.replace("greetings.csv", "greeting.csv"))
    assert "dataset.path: there is no file or folder data/greeting.csv yet: relative paths start from /" in path
    assert warnings(PIPELINE.replace("greetings.csv", "2026-*.csv")) == []
    (model,) = warnings(PIPELINE.replace("claude-haiku-5-5", "claude-haiku-55"))
    assert "params.model: 'claude-haiku-55' has no price" in model and "did you mean 'claude-haiku-5-5'?" in model


def test_several_pipelines_bring_the_asset_with_what_was_spent_along_once(project: Project) -> None:
    for name, key in (("second", ""), ("third", "  resource_key: eu\n"), ("fourth", "  resource_key: eu\n")):
        owners = "post_processing:\n  assets:\n    - target: '*'\n      attributes: {owners: ['team:reviews']}\n"
        project.write(f"defs/{name}/defs.yaml", PIPELINE.replace("greetings", name) + key + owners)
    resources = dg.Definitions(resources={"eu": MessageBatchResource()})
    for _ in range(2):  # a code location that is loaded again has it again
        loaded = dg.Definitions.merge(project.load(PIPELINE), resources)
        keys = {key.to_user_string() for key in loaded.resolve_asset_graph().get_all_asset_keys()}
        assert {key for key in keys if key.startswith("message_batches/")} == {
            "message_batches/spend",
            "message_batches/spend_eu",
        }
        loaded.get_repository_def()


def test_templates_and_an_inline_schema_pass_through_untouched(project: Project) -> None:
    answer = '{type: string, description: "{{ raw }} 1_000"}'
    inline = f"{{type: object, additionalProperties: false, properties: {{answer: {answer}}}}}"
    loaded = project.load(PIPELINE + f"  output_schema: {inline}\n")
    pipeline = pipelines_in(loaded.resolve_all_asset_specs())["greetings"].pipeline
    assert pipeline.config.params["messages"] == [{"role": "user", "content": "{{ text }}"}]
    assert pipeline.output is not None
    assert pipeline.output.schema["properties"]["answer"]["description"] == "{{ raw }} 1_000"


@pytest.mark.parametrize(("added", "line"), [("    max_tokens: 60\n", 9), ("  dataset: {path: b.csv}\n", 9)])
def test_a_key_that_is_twice_in_a_map_is_an_error(project: Project, added: str, line: int) -> None:
    with pytest.raises(Exception) as caught:  # Dagster wraps it in errors of its own
        project.load(PIPELINE.strip() + "\n" + added)
    assert re.search(rf"defs\.yaml: line {line}: the key '\w+' is twice in one map", whole_text(caught.value))


@pytest.mark.parametrize("name", [*(["defs.yml"] if READS_DEFS_YML else []), "component.yaml"])
def test_the_file_with_the_mistake_is_named(project: Project, name: str) -> None:
    with pytest.raises(Exception) as caught:
        project.load(PIPELINE.strip() + "\n    max_tokens: 60\n", file_name=name)
    assert f"{name}: line 9: the key 'max_tokens' is twice in one map" in whole_text(caught.value)


def test_the_priority_is_a_template_over_the_row(project: Project) -> None:
    priority = "{{ 1 if text == 'urgent' else 0 }}"
    batching = f'  batching: {{max_requests: "{{{{ 5 + 1 }}}}", priority: "{priority}"}}\n'
    pipeline = pipelines_in(project.load(PIPELINE + batching).resolve_all_asset_specs())["greetings"].pipeline
    assert pipeline.config.batching.priority == priority
    assert pipeline.config.batching.max_requests == 6
    with pytest.raises(Exception) as caught:  # Dagster wraps it in errors of its own
        project.load(PIPELINE + "  batching: {priority: '{{ text '}\n")
    assert "batching.priority: " in whole_text(caught.value)


def test_betas_are_templates_over_the_row(project: Project) -> None:
    beta = "{{ 'output-300k-2026-03-24' if text | length > 100000 else none }}"
    loaded = project.load(PIPELINE + f'  betas: [one, "{beta}"]\n')
    pipeline = pipelines_in(loaded.resolve_all_asset_specs())["greetings"].pipeline
    assert pipeline.config.betas == ["one", beta]
    assert pipeline.betas.by_row
    assert pipeline.reads == {"text"}


def test_dagster_templates_work_in_the_other_fields(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETINGS", "data/others.csv")
    text = (
        PIPELINE.replace("data/greetings.csv", "'{{ env.GREETINGS }}'")
        + "  retry: {max_attempts: '{{ 2 + 3 }}'}\n"
    )
    config = pipelines_in(project.load(text).resolve_all_asset_specs())["greetings"].pipeline.config
    assert config.dataset.path == "data/others.csv"
    assert config.retry.max_attempts == 5


@pytest.mark.parametrize(
    ("break_it", "field", "problem"),
    [
        (lambda text: text.replace("path:", "pth:"), "dataset", "pth"),
        (lambda text: text + "  outputschema: x.json\n", "outputschema", "no such field"),
        (lambda text: text.replace("name: greetings", "name: gree-tings"), "name", "letters, digits"),
        (lambda text: text + "  max_failed: many\n", "max_failed", "give a number, not many"),
        (lambda text: text + "  retry: {max_attempts: 0}\n", "retry", "give at least 1, not 0"),
        (lambda text: text.replace("{{ text }}", "{{ text "), "params.messages[0].content", "end of"),
        (lambda text: text.replace("{{ text }}", "{% include 'no.md' %}"), "params.messages[0].content", "no.md"),
        (lambda text: text + "  betas: [one, '{{ text ']\n", "betas[1]", "end of"),
        (lambda text: text + "  betas: one\n", "betas", "give a list"),
        (lambda text: text + "  output_schema: no.json\n", "output_schema", "no.json is not beside"),
        (lambda text: text.replace("max_tokens: 50", "stream: true"), "params.", "max_tokens"),
        (lambda text: text.split("attributes")[0] + "attributes: {}\n", "name", "required"),
    ],
)
def test_a_mistake_is_reported_with_file_and_field_when_definitions_load(
    project: Project, break_it: Callable[[str], str], field: str, problem: str
) -> None:
    with pytest.raises(Exception) as caught:  # Dagster wraps it in errors of its own
        project.load(break_it(PIPELINE))
    text = whole_text(caught.value)
    assert f"{project.package}/defs/greetings/defs.yaml" in text
    assert field in text
    assert problem in text


def test_two_pipelines_have_one_sensor(project: Project) -> None:
    loaded = project.load(PIPELINE + "---" + PIPELINE.replace("name: greetings", "name: farewells"))
    project.write("defs/third/defs.yaml", PIPELINE.replace("name: greetings", "name: third"))
    loaded = project.load()
    repository = loaded.get_repository_def()
    assert [sensor.name for sensor in repository.sensor_defs] == ["message_batches_sensor"]
    assert repository.sensor_defs[0].default_status == dg.DefaultSensorStatus.RUNNING
    assert set(pipelines_in(loaded.resolve_all_asset_specs())) == {"greetings", "farewells", "third"}


def test_two_pipelines_with_the_same_name_are_refused_with_both_files(project: Project) -> None:
    project.write("defs/second/defs.yaml", PIPELINE)
    with pytest.raises(Exception) as caught:
        project.load(PIPELINE)
    text = whole_text(caught.value)
    assert f"{project.package}/defs/second/defs.yaml:4: name: 'greetings' is also the name of" in text
    assert f"in {project.package}/defs/greetings/defs.yaml: give each a name of its own" in text


def test_a_pipeline_in_python_may_not_have_the_name_of_a_file(project: Project) -> None:
    project.write("defs/python_pipeline.py", WITH_SENSOR.replace("in_python", "greetings"))
    loaded = project.load(PIPELINE)
    with pytest.raises(ConfigError, match="'greetings' is taken by"):
        with_unique_names(loaded)


def test_a_subclass_changes_how_assets_present_themselves(project: Project) -> None:
    project.write(
        "owned.py",
        """
        import dagster as dg
        from batch_assets import MessageBatchComponent

        class Owned(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                spec = super().get_asset_spec(pipeline, stage)
                return spec.replace_attributes(key=["reviews", stage], owners=["team:reviews"])
        """,
    )
    loaded = project.load(PIPELINE.replace("batch_assets.MessageBatchComponent", f"{project.package}.owned.Owned"))
    assets = specs(loaded)
    assert [dep.asset_key.to_user_string() for dep in assets["reviews/results"].deps] == ["reviews/batches"]
    assert assets["reviews/requests"].owners == ["team:reviews"]
    assert pipelines_in(assets.values())["greetings"].stages["results"] == dg.AssetKey(["reviews", "results"])


def test_owners_tags_and_group_are_set_by_post_processing_as_documented(project: Project) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "metadata.md").read_text("utf-8"), re.DOTALL)
    loaded = project.load(block)
    assets = specs(loaded)
    assert set(assets) == {f"review_triage/{stage}" for stage in ("requests", "batches", "results")}
    for spec in assets.values():
        assert spec.owners == ["team:reviews", "ada@example.com"]
        assert (spec.tags["domain"], spec.group_name) == ("reviews", "customer_voice")
    # The sensor and the command line still find what they need.
    assert set(pipelines_in(assets.values())["review_triage"].stages) == {"requests", "batches", "results"}


def test_a_pipeline_in_python(project: Project, tmp_path: Path) -> None:
    project.write("defs/python_pipeline.py", WITH_SENSOR)
    loaded = project.load(PIPELINE)
    pipeline = pipelines_in(loaded.resolve_all_asset_specs())["in_python"].pipeline
    assert pipeline.project == tmp_path.resolve()
    assert len(list(loaded.get_repository_def().sensor_defs)) == 1


def test_a_mistake_in_python_names_pipeline_and_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"build_message_batch_assets\(name='greetings'\): params\.model: "):
        build_message_batch_assets(name="greetings", dataset={"path": "a.csv"}, params={}, folder=tmp_path)


def test_the_same_sensor_twice_is_one_object() -> None:
    assert build_message_batch_sensor() is build_message_batch_sensor()
    assert build_message_batch_sensor(pipelines=["a"]) is not build_message_batch_sensor()


def test_the_sensor_looks_more_often_with_the_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_message_batch_sensor().minimum_interval_seconds == 30
    monkeypatch.setenv("BATCH_ASSETS_EMULATOR", "http://127.0.0.1:1")
    assert build_message_batch_sensor().minimum_interval_seconds == 5


def test_every_field_of_a_pipeline_is_explained_in_the_schema() -> None:
    schema = MessageBatchComponent.model().model_json_schema()
    blocks = [schema, *schema["$defs"].values()]
    silent = [
        name for block in blocks for name, field in block["properties"].items() if "description" not in field
    ]
    assert silent == []


def test_the_projects_own_pipelines_load() -> None:
    assert {"review_triage", "ticket_replies"} <= set(load_project().pipelines)


def test_static_keys_are_text_as_written_in_the_file(project: Project) -> None:
    keys = """["007", "2025", "1e3", "None", "true", "{{ 'd' ~ 'e' }}"]"""
    text = PIPELINE.replace("data/greetings.csv", "'data/{partition}.csv'")
    definition = specs(project.load(text + f"  partitions: {{static: {keys}}}\n"))[
        "greetings/requests"
    ].partitions_def
    assert definition is not None
    assert definition.get_partition_keys() == ["007", "2025", "1e3", "None", "true", "de"]


def test_texts_of_a_block_that_read_like_numbers_stay_texts(project: Project) -> None:
    """Dagster's templating would make numbers of them, and the pipeline would not load."""
    dataset = '{path: "2024", key: "1", columns: ["1", "2.50"], csv: {names: ["1", "2.50"], null_values: ["0"]}}'
    text = PIPELINE.replace("{path: data/greetings.csv, key: id}", dataset).replace("text }}", "row['2.50'] }}")
    text = text.replace("name: greetings", 'name: "2024"')
    loaded = pipelines_in(project.load(text).resolve_all_asset_specs())["2024"].pipeline.config.dataset
    assert (loaded.path, loaded.key, loaded.columns) == ("2024", "1", ["1", "2.50"])
    assert loaded.csv is not None
    assert (loaded.csv.names, loaded.csv.null_values) == (["1", "2.50"], ["0"])


def test_texts_beside_templates_stay_texts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YEAR", "2024")
    text = PIPELINE.replace("{path: data/greetings.csv, key: id}", "{path: '{{ env.YEAR }}', key: '1'}")

    def config(more: str) -> PipelineConfig:
        return pipelines_in(project.load(text + more).resolve_all_asset_specs())["greetings"].pipeline.config

    loaded = config("  cost_center: '4711'\n  pilot: '20'\n")
    assert (loaded.cost_center, loaded.dataset.path, loaded.dataset.key) == ("4711", "2024", "1")
    assert loaded.pilot is not None and loaded.pilot.rows == 20
    assert config("  cost_center: '0047'\n").cost_center == "0047"
    assert config("  cost_center: '{{ env.YEAR }}'\n").cost_center == "2024"
    with pytest.raises(Exception) as caught:
        project.load(text + "  cost_center: 4711\n")
    assert "cost_center: give a text, not 4711; put it in quotes if it is one" in whole_text(caught.value)


def test_a_subclass_may_have_fields_of_its_own(project: Project) -> None:
    project.write(
        "owned.py",
        """
        from typing import Annotated

        import dagster as dg
        from batch_assets import MessageBatchComponent

        def _length(context, text):
            return len(text)

        class Owned(MessageBatchComponent):
            length: Annotated[int, dg.Resolver(_length, model_field_type=str)]
            max_failed: Annotated[float, dg.Resolver(lambda context, text: 0.5, model_field_type=str)] = 0.01
            team: str = "reviews"
        """,
    )
    text = PIPELINE.replace("batch_assets.MessageBatchComponent", f"{project.package}.owned.Owned")
    text += "  length: four\n  team: support\n  max_failed: half\n"
    assert set(specs(project.load(text))) == {f"greetings/{stage}" for stage in ("requests", "batches", "results")}
    with pytest.raises(Exception) as caught:
        project.load(text + "  retry: 3\n")
    assert "defs.yaml: retry: give a map of its fields, not 3" in whole_text(caught.value)
    with pytest.raises(Exception) as caught:
        project.load(text + "  max_invalid: '{{ nowhere }}'\n")
    error = whole_text(caught.value)
    assert "there is no variable 'nowhere' here" in error and "a number" not in error


def test_a_mistake_keeps_no_validator_alive() -> None:
    schema = MessageBatchComponent.get_model_cls()
    attributes = schema.model_validate({"name": "greetings", "retry": 3})
    assert isinstance(attributes, KeptAttributes)
    mistake = mistake_in(attributes)
    assert mistake is not None and mistake.__traceback__ is None


def test_partitions_of_the_pipeline_file(project: Project) -> None:
    text = PIPELINE + "  partitions: {daily: {start: 2026-01-01, timezone: Europe/Berlin}, column: submitted_at}\n"
    loaded = project.load(text + "---" + PIPELINE.replace("name: greetings", "name: by_language"))
    assets = specs(loaded)
    daily = dg.DailyPartitionsDefinition("2026-01-01", timezone="Europe/Berlin")
    assert [assets[f"greetings/{stage}"].partitions_def for stage in ("requests", "batches", "results")] == [
        daily
    ] * 3
    assert assets["by_language/results"].partitions_def is None
    by_language = PIPELINE.replace("name: greetings", "name: by_language") + "  partitions: {column: language}\n"
    repository = project.load(by_language).get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "message_batches_sensor",
        "by_language_partitions_sensor",
    }
    with pytest.raises(Exception) as caught:
        project.load(PIPELINE + "  partitions: {daily: {start: 2026-01-01}}\n")
    assert "put {partition} into dataset.path" in whole_text(caught.value)
