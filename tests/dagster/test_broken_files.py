"""Pipeline files that are broken: each loads as assets that fail with what is wrong, and all others go on."""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text as sql

from batch_assets import load_from_defs_folder
from batch_assets.core.errors import SettingsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.faults import field_line, unreadable
from batch_assets.core.pipeline.suspects import any_looks_broken, pipeline_files
from batch_assets.dagster.broken.report import BrokenFilesError
from batch_assets.dagster.broken_file import PIPELINE_FILE_CHECK, BrokenFile, broken_in
from batch_assets.dagster.pipelines import pipelines_in
from batch_assets.dagster.template_variables import variable_without_value
from batch_assets.emulator import Emulator
from tests.projects import IN_PYTHON, PIPELINE, Project

MISTAKEN = IN_PYTHON.replace("max_tokens", "max_token")
STAGES = ("requests", "batches", "results")
GOOD = PIPELINE.replace("greetings", "good")
MESSAGES = 'messages: [{role: user, content: "{{ text }}"}]'


def in_place_of(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def after(new: str) -> Callable[[str], str]:
    return lambda text: text + new


# How the file is broken -> its line, and what is reported. Dagster's own loader reads these files.
OF_COMPONENTS = {
    "unknown field": (
        after("  dataset_: {path: b.csv}\n"),
        10,
        "dataset_: there is no such field: did you mean `dataset`?",
    ),
    "in a block": (
        after("  retry: {max_atempts: 3}\n"),
        10,
        "retry.max_atempts: there is no such field: did you mean",
    ),
    "wrong type": (after("  retry: 3\n"), 10, "retry: give a map of its fields, not 3"),
    "missing field": (
        in_place_of("dataset: {path: data/greetings.csv, key: id}", "watch: false"),
        3,
        "dataset: this",
    ),
    "params": (in_place_of("max_tokens", "max_token"), 8, "params.max_token: "),
    "key twice": (after("    max_tokens: 60\n"), 10, "the key 'max_tokens' is twice in one map"),
    "template": (in_place_of("{{ text }}", "{{ text "), 9, "params.messages[0].content: "),
    "prompt file": (in_place_of("{{ text }}", "{% include 'no.md' %}"), 9, "the file 'no.md' is not beside"),
    "no price": (
        lambda text: text.replace("claude-haiku-5-5", "mine") + "  budget: {max_usd: 3, per: day}\n",
        7,
        "params.model: there is no price for mine",
    ),
    "date": (after("  partitions: {daily: {start: 2026-11-31}}\n"), 10, "partitions.daily.start: "),
    "schedule": (after("  schedule: x y\n"), 10, "schedule: 'x y' is not a cron expression"),
    "variable": (
        in_place_of("data/greetings.csv", "'{{ nowhere }}/a.csv'"),
        5,
        "dataset.path: there is no",
    ),
    "environment": (
        in_place_of("data/greetings.csv", "'{{ env.NO_SUCH_VARIABLE }}/a.csv'"),
        5,
        "dataset.path: the environment variable NO_SUCH_VARIABLE is not set",
    ),
    "variable alone": (in_place_of("data/greetings.csv", "'{{ nowhere }}'"), 5, "there is no variable 'nowhere'"),
    "variable that is required": (
        in_place_of("name: greetings", "name: '{{ env.NOPE }}'"),
        4,
        "name: the environment variable NOPE is not set: set it for all processes",
    ),
    "variable of a filter": (
        in_place_of("data/greetings.csv", "'{{ nowhere | lower }}.csv'"),
        5,
        "dataset.path: there is no variable 'nowhere' here",
    ),
    "boolean for a number": (
        after("  budget: {max_usd: yes, per: day}\n"),
        10,
        "budget.max_usd: give a number, not true (yes and on mean true too)",
    ),
    "boolean in place of a block": (
        after("  pilot: true\n"),
        10,
        "pilot: give a number of rows or a map of its fields, not true",
    ),
    "no model": (in_place_of("claude-haiku-5-5", "''"), 7, "params.model: the text is empty: name a model"),
    "template of Dagster": (
        in_place_of("data/greetings.csv", "'{{ text'"),
        5,
        'dataset.path: the template "{{ text" cannot be read (unexpected end of template',
    ),
    "template in a list": (
        after('  partitions: {static: [de, "{% if %}"], column: text}\n'),
        10,
        'partitions.static.1: the template "{% if %}" cannot be read (Expected an expression',
    ),
    "filter": (
        after("  op:\n    requests:\n      tags: {a: \"{{ 'a' | nofilter }}\"}\n"),
        12,
        "op.requests.tags.a: the template \"{{ 'a' | nofilter }}\" cannot be read (No filter named 'nofilter')",
    ),
    "rendering": (
        after('  retry: "{{ 1 / 0 }}"\n'),
        10,
        'retry: the template "{{ 1 / 0 }}" cannot be rendered (ZeroDivisionError: division by zero): correct it',
    ),
}
# What is wrong with an entry of `post_processing` -> what is reported.
OF_POST_PROCESSING = {
    "target: greetings/result": "target: no asset of this file has this key: give the key of an asset",
    "target: 'a or'": "target: it selects no asset (Invalid selection string: a or): give the key",
    "operation: mrge": "operation: give merge or replace, not mrge: did you mean `merge`?",
    "attributes: text": "attributes: give a map of its fields",
    "attributes: {owners: [a]}": "attributes.owners: Invalid owner 'a'",
    "attributes: {tags: text}": "attributes.tags: give a map",
    "attributes: {automation_condition: eager}": "attributes.automation_condition: give a template that",
    "attributes: {automation_condition: 5}": "attributes.automation_condition: give a template that",
    "attributes: {group_name: '{{ nope }}'}": "attributes.group_name: there is no variable 'nope' here",
    "attributes: {group_name: '{{ dg.Nope }}'}": 'attributes.group_name: the template "{{ dg.Nope }}" cannot be ',
}
# Dagster's own loader fails for all pipelines.
OF_DAGSTER = {
    "unquoted": (in_place_of('"{{ text }}"', "{{ text }}"), 9, 'put it in quotes, "{{ text }}"'),
    "unquoted text": (
        in_place_of(MESSAGES, "messages:\n      - role: user\n        content: {{ text }} there"),
        11,
        'put it in quotes, "{{ text }} there"',
    ),
    "unquoted include": (in_place_of(MESSAGES, "system: {% include 'a.md' %}"), 9, "put it in quotes, "),
    "syntax": (in_place_of("  params:", "    params:"), 6, "this is not YAML ("),
    "no map": (lambda text: "- greetings\n", None, "this is not a map: it needs the keys `type`"),
    "empty": (lambda text: "", None, "the file is empty"),
    "type": (
        in_place_of("MessageBatchC", "MesageBatchC"),
        2,
        "type: there is no batch_assets.MesageBatchComponent",
    ),
    "module": (in_place_of("batch_assets.M", "batch_asets.M"), 2, "type: there is no batch_asets."),
    "type without a module": (
        in_place_of("batch_assets.M", "M"),
        2,
        "type: MessageBatchComponent is not the name of a component: a pipeline has batch_assets.Mess",
    ),
    "type of a second document": (
        after("---\ntype: Mine\nattributes: {}\n"),
        11,
        "type: Mine is not the name of a",
    ),
    "missing type of a second document": (
        after("---\ntype: batch_assets.Mine\nattributes: {}\n"),
        11,
        "type: there is no batch_assets.Mine",
    ),
    "no type": (in_place_of("batch_assets.MessageBatchComponent", "5"), 2, "type: 5 is not the name of a"),
    "no component": (
        in_place_of("batch_assets.MessageBatchComponent", "dagster.asset"),
        2,
        "type: dagster.asset is no component for a YAML file: a pipeline has batch_assets.Mess",
    ),
    "component without attributes": (
        in_place_of("batch_assets.MessageBatchComponent", "dagster.Component"),
        2,
        "type: dagster.Component has no attributes in YAML: a pipeline has batch_assets.Mess",
    ),
    "module of variables": (
        after("template_vars_module: .nope\n"),
        10,
        "template_vars_module: there is no module",
    ),
    "key": (in_place_of("type:", "typ:"), 2, "typ: there is no such key: did you mean `type`?"),
    "tag": (in_place_of("id}", "!env KEY}"), 5, "there is no tag !env in a pipeline file: write the value"),
    "value of a tag": (in_place_of("50", "!!int fifty"), 8, "'fifty' cannot be read as !!int: if it is a text"),
    "circle of aliases": (after("    metadata: &all {all: *all}\n"), 10, "an alias (*) is inside of the value"),
    "list as a key": (after("    metadata: {[a]: b}\n"), 10, "a list is the key of a map: put the key in quotes"),
    "bad merge": (after("    <<: 3\n"), 10, "the key << merges a map: give it a map, or an alias of one"),
    "deep": (after(f"    metadata: {'[' * 1500}{']' * 1500}\n"), None, "nested too deeply to be read"),
    "post-processing": (
        after("post_processing: {assts: []}\n"),
        10,
        "post_processing.assts: there is no such field",
    ),
    "field of post-processing": (
        after("post_processing:\n  assets:\n    - target: '*'\n      attributes: {ownerz: [a], kinds: 3}\n"),
        13,
        "post_processing.assets.0.attributes.kinds: give a list",
    ),
    "post-processing without a list": (
        after("post_processing: {assets: text}\n"),
        10,
        "post_processing.assets: give a list of maps with `target` and `attributes`",
    ),
    "control character": (in_place_of("{{ text }}", "\a{{ text }}"), 9, "YAML has no character U+0007: remove it"),
}


def load(
    project: Project, text: str, loader: Any = load_from_defs_folder
) -> tuple[dg.Definitions, dict[str, BrokenFile]]:
    """Load a project with a good pipeline and another file."""
    project.write("defs/good/defs.yaml", GOOD)
    project.write("defs/greetings/defs.yaml", text)
    path = project.folder / project.package  # ours takes a text, too
    definitions = loader(path_within_project=str(path) if loader is load_from_defs_folder else path)
    specs = list(definitions.resolve_all_asset_specs())
    assert "good" in pipelines_in(specs)
    return definitions, broken_in(specs)


def keys_of(definitions: dg.Definitions) -> set[str]:
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    return {key for key in keys if not key.startswith(("good/", "message_batches/"))}


def test_a_recursion_in_a_module_is_not_one_of_the_file(project: Project) -> None:
    project.write("endless.py", "def ask():\n    return ask()\n\n\nask()\n")
    _, broken = load(project, PIPELINE.replace("batch_assets.Message", f"{project.package}.endless.Message"))
    (fault,) = broken["greetings"].faults
    assert fault.problem == f"RecursionError: maximum recursion depth exceeded ({project.package}/endless.py:2)"


@pytest.mark.parametrize("written", OF_POST_PROCESSING)
def test_a_broken_entry_of_post_processing(project: Project, written: str) -> None:
    fields = {"target": "target: greetings/results", "attributes": "attributes: {kinds: [a]}"}
    fields[written.partition(":")[0]] = written
    text = f"{PIPELINE}post_processing:\n  assets:\n    - attributes: {{kinds: [a]}}\n    - description: x\n"
    text = text.replace("description: x", "\n      ".join(sorted(fields.values(), key=lambda f: f == written)))
    _, broken = load(project, text)
    (fault,) = broken["greetings"].faults
    written_at = text[: text.index(written)].count("\n") + 1
    assert (
        str(fault)
        .partition("defs.yaml")[2]
        .startswith(f":{written_at}: post_processing.assets.1.{OF_POST_PROCESSING[written]}")
    )


@pytest.mark.parametrize("kind", [*OF_COMPONENTS, *OF_DAGSTER])
def test_a_broken_file_loads_as_assets_that_fail(project: Project, kind: str) -> None:
    change, line, problem = {**OF_COMPONENTS, **OF_DAGSTER}[kind]
    definitions, broken = load(project, change(PIPELINE))
    at = f":{line}" if line is not None else ""
    assert str(broken["greetings"]).startswith(f"{project.package}/defs/greetings/defs.yaml{at}: ")
    assert problem in str(broken["greetings"])
    assert keys_of(definitions) == {f"greetings/{stage}" for stage in STAGES}
    repository = definitions.get_repository_def()
    assert [sensor.name for sensor in repository.sensor_defs] == ["message_batches_sensor"]


@pytest.mark.parametrize("kind", OF_COMPONENTS)
def test_dagsters_own_loader_loads_a_broken_component(project: Project, kind: str) -> None:
    change, _, problem = OF_COMPONENTS[kind]
    definitions, broken = load(project, change(PIPELINE), dg.load_from_defs_folder)
    assert problem in str(broken["greetings"])
    assert keys_of(definitions) == {f"greetings/{stage}" for stage in STAGES}


def test_materializing_it_and_its_check_fail_with_what_is_wrong(
    project: Project, instance: dg.DagsterInstance
) -> None:
    definitions, broken = load(project, PIPELINE + "  retry: 3\n  color: red\n")
    text = str(broken["greetings"])
    job = definitions.resolve_implicit_global_asset_job_def()
    for selection in (["greetings/requests"], ["greetings/batches", "greetings/results"]):
        keys = [dg.AssetKey.from_user_string(key) for key in selection]
        done = job.execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)
        (failure,) = done.get_step_failure_events()
        assert failure.step_failure_data.user_failure_data is not None
        assert failure.step_failure_data.user_failure_data.description == text
        assert failure.event_specific_data is not None
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    listed = "".join(f"- {line}\n" for line in text.splitlines())
    assert listed in (specs["greetings/results"].description or "").replace("\\", "")
    check = dg.AssetCheckKey(dg.AssetKey(["greetings", "results"]), PIPELINE_FILE_CHECK)
    subset = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_check_selection={check}, asset_selection=set()
    )
    (evaluated,) = subset.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert not evaluated.passed
    assert f"{(evaluated.description or '').replace(chr(92), '')}\n" == listed


def test_its_partitions_and_its_resource_are_kept(project: Project) -> None:
    resource = "import dagster as dg, batch_assets\n"
    resource += "defs = dg.Definitions(resources={'eu': batch_assets.MessageBatchResource()})\n"
    project.write("defs/resources.py", resource)
    more = "  partitions: {static: [de, en], column: language}\n  resource_key: eu\n"
    definitions, broken = load(project, PIPELINE + more + "  retry: 3\n")
    assert broken["greetings"].resource_key == "eu"
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    partitions = specs["greetings/batches"].partitions_def
    assert partitions is not None and partitions.get_partition_keys() == ["de", "en"]
    assert {sensor.name for sensor in definitions.get_repository_def().sensor_defs} == {
        "message_batches_sensor",
        "message_batches_eu_sensor",
    }
    # The name is above the fault, the partitions are below it.
    definitions, broken = load(project, PIPELINE.replace("{{ text }}", '"'))
    assert keys_of(definitions) == {f"greetings/{stage}" for stage in STAGES}


def test_a_resource_that_a_whole_location_does_not_have(project: Project) -> None:
    resource = "import dagster as dg, batch_assets\n"
    resource += "defs = dg.Definitions(resources={'eu': batch_assets.MessageBatchResource(), 'other': 1})\n"
    project.write("defs/resources.py", resource)
    project.write("defs/third/defs.yaml", PIPELINE.replace("greetings", "third") + "  resource_key: eu\n")
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, PIPELINE + "  resource_key: us\n", whole)
    assert str(broken["greetings"]).endswith(
        "defs.yaml:10: resource_key: the definitions have no resource 'us'; those with a root: eu"
    )
    assert set(pipelines_in(definitions.resolve_all_asset_specs())) == {"good", "third"}
    definitions.get_repository_def()
    assert list(load(project, PIPELINE + "  resource_key: us\n  retry: 3\n", whole)[1]) == ["greetings"]


def of_asset(name: str, asset: str) -> str:
    return PIPELINE.replace("name: greetings", f"name: {name}").replace(
        "{path: data/greetings.csv, key: id}", f"{{asset: {asset}}}"
    )


def test_a_dataset_that_a_whole_location_does_not_have(project: Project) -> None:
    assets = "import dagster as dg\n\n@dg.asset(key=['staging', 'raw_texts'])\ndef raw(): ...\n"
    project.write("defs/assets.py", assets + "source = dg.AssetSpec('outside')\n")
    for name, asset in {
        "typo": "staging/raw_text",
        "prefix": "raw_texts",
        "right": "staging/raw_texts",
        "source": "outside",
        "of_pipeline": "right/results",
        "of_broken": "greetings/results",
    }.items():
        project.write(f"defs/{name}/defs.yaml", of_asset(name, asset))
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, of_asset("greetings", "nowhere/at_all"), whole)
    file = f"{project.package}/defs/greetings/defs.yaml:5: dataset.asset"
    assert str(broken["greetings"]).startswith(
        f"{file}: there is no asset nowhere/at_all: give the key of an asset"
    )
    for name in ("typo", "prefix"):
        assert str(broken[name]).endswith("did you mean staging/raw_texts?")
    assert set(broken) == {"greetings", "typo", "prefix"}, broken
    assert set(pipelines_in(definitions.resolve_all_asset_specs())) == {
        "good",
        "right",
        "source",
        "of_pipeline",
        "of_broken",
    }
    definitions.get_repository_def()


def test_an_asset_that_a_broken_python_file_would_define_is_missing(project: Project) -> None:
    project.write(
        "defs/oops.py", "import nowhere_to_be_found\nimport dagster as dg\nraw = dg.asset(name='raw')(dict)\n"
    )
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, of_asset("greetings", "raw"), whole)
    assert set(broken) == {"oops", "greetings"}
    assert str(broken["greetings"]).endswith(
        "dataset.asset: there is no asset raw: correct the file that defines it; "
        f"these are broken: {project.package}/defs/oops.py"
    )
    definitions.get_repository_def()


def test_assets_in_python_that_read_a_missing_one_load_and_it_fails(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.write("defs/oops.py", "import nowhere_to_be_found\n")
    project.write(
        "defs/reader.py",
        """
        import dagster as dg

        @dg.asset(deps=["not_read"])
        def reader(raw): ...
        """,
    )
    dataset = IN_PYTHON.replace('"path": "data/greetings.csv"', '"asset": "raw"')
    project.write("defs/in_python.py", dataset)
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, GOOD.replace("good", "greetings"), whole)
    assert set(broken) == {"oops", "raw"}
    remedy = f"correct the file that defines it; these are broken: {project.package}/defs/oops.py"
    problem = f"there is no asset raw: {remedy}"
    assert sorted(str(broken["raw"]).splitlines()) == [
        f"asset reader: {problem}",
        f"build_message_batch_assets(name='in_python'): {problem}",
    ]
    assert {"in_python", "good", "greetings"} == set(pipelines_in(definitions.resolve_all_asset_specs()))
    job = definitions.get_repository_def().get_implicit_global_asset_job_def()
    done = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("raw"), dg.AssetKey("reader")], raise_on_error=False
    )
    assert not done.success


def test_a_pipeline_that_loses_its_dataset_with_another_is_broken_too(project: Project) -> None:
    project.write(
        "owned.py",
        """
        from batch_assets import MessageBatchComponent

        class Owned(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                return super().get_asset_spec(pipeline, stage).replace_attributes(key=f"own_{stage}")
        """,
    )
    owned = of_asset("owned", "nowhere/at_all").replace(
        "batch_assets.MessageBatchComponent", f"{project.package}.owned.Owned"
    )
    project.write("defs/owned/defs.yaml", owned)
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, of_asset("greetings", "own_results"), whole)
    assert set(broken) == {"owned", "greetings"}
    definitions.get_repository_def()


def test_pipelines_that_are_made_from_their_own_answers(project: Project) -> None:
    project.write("defs/one/defs.yaml", of_asset("one", "two/results"))
    project.write("defs/two/defs.yaml", of_asset("two", "one/results"))
    project.write("defs/reader/defs.yaml", of_asset("reader", "one/results"))
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, of_asset("greetings", "greetings/results"), whole)
    assert set(broken) == {"one", "two", "greetings"}
    assert str(broken["greetings"]).endswith(
        "defs.yaml:5: dataset.asset: the assets form a circle, greetings/results from greetings/batches "
        "from greetings/requests: name an asset that is not made from this pipeline's answers"
    )
    assert "circle, two/results from two/batches from two/requests from one/results" in str(broken["one"])
    assert definitions.get_repository_def().asset_graph.toposorted_asset_keys


@pytest.mark.parametrize("text", [PIPELINE, PIPELINE + "  retry: 3\n"])
def test_an_asset_in_python_with_a_key_of_a_pipeline_goes_on(project: Project, text: str) -> None:
    asset = "import dagster as dg\n\n@dg.asset(key=['greetings', 'results'])\ndef mine(): ...\n"
    project.write("defs/mine.py", asset)
    whole = partial(load_from_defs_folder, is_whole=True)
    definitions, broken = load(project, text, whole)
    assert set(broken) == {"greetings_2"}
    assert keys_of(definitions) == {"greetings/results", *(f"greetings_2/{stage}" for stage in STAGES)}
    if text == PIPELINE:
        problem = "another asset has the key greetings/results too: give one of them another name"
        assert str(broken["greetings_2"]).endswith(f"greetings/defs.yaml:4: name: {problem}")
    definitions.get_repository_def()


def test_a_dataset_may_come_from_outside_of_a_folder_that_is_not_whole(project: Project) -> None:
    project.write("defs/greetings/defs.yaml", of_asset("greetings", "elsewhere"))
    definitions = load_from_defs_folder(path_within_project=project.folder / project.package)
    elsewhere = dg.Definitions(assets=[dg.AssetSpec("elsewhere")])
    whole = dg.Definitions.merge(definitions, elsewhere)
    assert "greetings" in pipelines_in(whole.resolve_all_asset_specs())


def test_what_is_wrong_takes_one_line_each_and_is_worded_for_people(project: Project) -> None:
    more = "post_processing:\n  assets:\n    - target: '*'\n      attributes: {ownerz: [a], kinds: 3}\n"
    assert len(str(load(project, PIPELINE + more)[1]["greetings"]).splitlines()) == 2
    file = project.folder / project.package / "defs" / "greetings" / "defs.yaml"
    project.write("defs/greetings/itself.md", "{% include 'itself.md' %}")
    _, broken = load(project, PIPELINE.replace("{{ text }}", "{% include 'itself.md' %}"))
    assert str(broken["greetings"]).endswith(
        ":9: params.messages[0].content: its recursion does not end, or is too deep: does a file include itself, "
        "or a macro call itself? (itself.md, line 1)"
    )
    for encoding, problem in (
        ("latin-1", ":9: it is not UTF-8 (byte 0xfc): save it as UTF-8"),
        ("utf-16", ": it is UTF-16: save it as UTF-8"),
    ):
        file.write_bytes(PIPELINE.replace("{{ text }}", "für {{ text }}").encode(encoding))
        definitions = load_from_defs_folder(path_within_project=project.folder / project.package)
        (broken_file,) = broken_in(list(definitions.resolve_all_asset_specs())).values()
        assert str(broken_file) == f"{project.package}/defs/greetings/defs.yaml{problem}"


def test_every_mistake_of_a_file_is_reported(project: Project) -> None:
    _, broken = load(project, PIPELINE + "  retry: 3\n  color: red\n  max_failed: 2\n")
    lines = str(broken["greetings"]).splitlines()
    assert [re.split(r"defs.yaml:|: ", line)[1:3] for line in lines] == [
        ["10", "retry"],
        ["12", "max_failed"],
        ["11", "color"],
    ]


def test_of_two_pipelines_of_one_name_the_copy_fails(project: Project) -> None:
    project.write("defs/copy/defs.yaml", PIPELINE)
    definitions, broken = load(project, PIPELINE)
    assert "greetings" in pipelines_in(definitions.resolve_all_asset_specs())
    assert list(broken) == ["copy"]
    assert "name: 'greetings' is also the name of the pipeline in" in str(broken["copy"])
    assert f"{project.package}/defs/greetings/defs.yaml" in str(broken["copy"])


def test_two_files_of_which_none_has_the_name_of_its_folder_both_fail(project: Project) -> None:
    for folder in ("one", "two"):
        project.write(f"defs/{folder}/defs.yaml", PIPELINE.replace("name: greetings", "name: third"))
    definitions, broken = load(project, PIPELINE)
    assert sorted(broken) == ["third", "two"]
    assert keys_of(definitions) == {
        f"{name}/{stage}" for name in ("greetings", "third", "two") for stage in STAGES
    }
    for file, other in (("third", "two"), ("two", "one")):
        assert f"in {project.package}/defs/{other}/defs.yaml" in str(broken[file])


def test_a_pipeline_to_which_a_circle_of_links_leads_again_goes_on(project: Project) -> None:
    defs = project.folder / project.package / "defs"
    defs.mkdir()
    (defs / "again").symlink_to(defs, target_is_directory=True)
    definitions, broken = load(project, PIPELINE)
    assert {"good", "greetings"} == set(pipelines_in(definitions.resolve_all_asset_specs()))
    assert f"of the pipeline in {project.package}/defs/good/defs.yaml: give" in str(broken["good_2"])
    definitions.get_repository_def()


def test_a_broken_file_leaves_its_name_to_a_good_one(project: Project) -> None:
    project.write("defs/another/defs.yaml", PIPELINE + "  retry: 3\n")
    definitions, broken = load(project, PIPELINE)
    assert "greetings" in pipelines_in(definitions.resolve_all_asset_specs())
    assert list(broken) == ["another"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("reviews/defs.yaml", "type: batch_assets.MessageBatchComponent\nattributes: {nam: x}\n"),
        ("pipeline/defs.yaml", PIPELINE),
        ("assets.py", "import nowhere_to_be_found\n"),
    ],
)
def test_broken_files_in_folders_of_one_name(project: Project, file: str, text: str) -> None:
    for folder in ("one", "two", "three"):
        project.write(f"defs/{folder}/{file}", text)
    definitions, broken = load(project, PIPELINE + "  retry: 3\n")
    assert len(broken) == 4
    assert {file.source.split("/")[2] for file in broken.values()} == {"one", "two", "three", "greetings"}
    definitions.get_repository_def()


def test_the_good_files_beside_it_are_loaded_without_warnings(project: Project) -> None:
    project.write("defs/code.py", "import dagster as dg\n\n@dg.asset\ndef plain(): ...\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(project, "type: [")
    assert [each.message for each in caught if issubclass(each.category, dg.PreviewWarning | dg.BetaWarning)] == []


def test_python_files_that_cannot_be_imported(project: Project) -> None:
    project.write("owned.py", "import nowhere_to_be_found\n")
    project.write(
        "defs/owned/defs.yaml",
        PIPELINE.replace("batch_assets.MessageBatchComponent", f"{project.package}.owned.Owned").replace(
            "greetings", "owned"
        ),
    )
    project.write("defs/in_python.py", MISTAKEN)
    project.write("defs/nested/typo.py", "def one(:\n")
    project.write(
        "defs/key.py",
        """
        from batch_assets import MessageBatchResource

        EU = MessageBatchResource(api_key="sk-1").get_resource_definition()
        """,
    )
    definitions, broken = load(project, PIPELINE)
    assert keys_of(definitions) == {
        *(f"{name}/{stage}" for name in ("owned", "greetings") for stage in STAGES),
        "in_python/broken_file",
        "key/broken_file",
        "typo/broken_file",
    }
    refused = "MessageBatchResource: give api_key as dg.EnvVar"
    assert str(broken["key"]).startswith(f"{project.package}/defs/key.py:4: {refused}")
    assert "No module named 'nowhere_to_be_found'" in str(broken["owned"])
    assert "build_message_batch_assets(name='in_python'): params.max_token: " in str(broken["in_python"])
    assert str(broken["typo"]).startswith(f"{project.package}/defs/nested/typo.py:1: SyntaxError: ")


def test_a_python_file_that_has_the_name_of_an_asset_of_another(project: Project) -> None:
    project.write("defs/fine.py", "import dagster as dg\n\n@dg.asset\ndef oops(): ...\n")
    project.write("defs/oops.py", "import nowhere_to_be_found\n")
    definitions, broken = load(project, GOOD.replace("good", "greetings"))
    assert list(broken) == ["oops"]
    assert {"oops", "oops/broken_file"} <= keys_of(definitions)
    definitions.get_repository_def()


def test_a_python_file_that_ends_the_process(project: Project) -> None:
    project.write("defs/script.py", "import sys\n\nsys.exit(3)\n")
    _, broken = load(project, GOOD.replace("good", "greetings"))
    assert str(broken["script"]) == f"{project.package}/defs/script.py:3: SystemExit: 3"


def test_a_hook_that_raises_while_the_file_loads(project: Project) -> None:
    project.write(
        "owned.py",
        """
        from batch_assets import MessageBatchComponent

        class Owned(MessageBatchComponent):
            def get_asset_spec(self, pipeline, stage):
                return {}["no such key"]
        """,
    )
    text = PIPELINE.replace("batch_assets.MessageBatchComponent", f"{project.package}.owned.Owned")
    _, broken = load(project, text, dg.load_from_defs_folder)
    assert f"KeyError: 'no such key' ({project.package}/owned.py:6)" in str(broken["greetings"])


def test_dg_check_names_all_broken_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    project.write("defs/third/defs.yaml", GOOD.replace("name: good", "name: ["))
    with pytest.raises(BrokenFilesError) as caught:
        load(project, PIPELINE + "  retry: 3\n")
    first, second = str(caught.value).splitlines()
    assert "greetings/defs.yaml:10: retry: give a map" in first
    assert "third/defs.yaml" in second


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("BATCH_ASSETS_BUDGET", ""),
        ("BATCH_ASSETS_PRICES", "  budget: {max_usd: 1, per: day}\n"),
        ("BATCH_ASSETS_PARTITIONS_PER_RUN", "  partitions: {daily: {start: 2026-01-01}, column: day}\n"),
    ],
)
def test_a_variable_that_cannot_be_read_breaks_no_file(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, fields: str
) -> None:
    """All runs fail with it, so a check of the definitions does, and the code server logs it once."""
    monkeypatch.setenv(name, "unreadable")
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "grpc"])
    _, broken = load(project, PIPELINE + fields)
    assert not broken
    (record,) = [record for record in caplog.records if record.name == "batch_assets"]
    assert record.getMessage().startswith(f"{name} is ")
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(SettingsError, match=f"^{name} is "):
        load(project, PIPELINE + "  retry: 3\n")


def test_a_broken_file_is_logged_once(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "batch_assets"):
        for _ in range(2):
            load(project, PIPELINE + "  retry: 3\n")
    (record,) = caplog.records
    assert "greetings/defs.yaml:10: retry: give a map" in record.getMessage()
    assert "greetings loads as a failing asset until the file is right; all others go on" in record.getMessage()


def test_a_project_that_cannot_be_loaded_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dg]\n[tool.dg.project]\nroot_module = "no_such_module"\n')
    with pytest.raises(dg.DagsterError, match="no_such_module"):
        load_from_defs_folder(path_within_project=tmp_path)


def ledger(statement: str) -> list[Any]:
    with open_root() as root, root.ledger.write() as tx:
        result = tx.execute(sql(statement))
        return list(result) if result.returns_rows else []


class Ticks:
    """The sensor of a project, ticked on demand."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self._project, self._instance, self._cursor = project, instance, None

    def materialize(self, *stages: str) -> None:
        job = self._load().resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(["greetings", stage]) for stage in stages]
        assert job.execute_in_process(instance=self._instance, asset_selection=keys).success

    def tick(self) -> Any:
        repository = self._load().get_repository_def()
        with dg.build_sensor_context(
            instance=self._instance, repository_def=repository, cursor=self._cursor
        ) as context:
            data = repository.get_sensor_def("message_batches_sensor").evaluate_tick(context)
        self._cursor = data.cursor or self._cursor
        for thread in threading.enumerate():
            if thread.name == "removed pipelines":
                thread.join()
        return data

    def _load(self) -> dg.Definitions:
        return load_from_defs_folder(path_within_project=self._project.folder / self._project.package)


def test_answers_of_a_pipeline_whose_file_broke_are_collected_and_its_table_waits(
    project: Project, emulator: Emulator, instance: dg.DagsterInstance
) -> None:
    (project.folder / "data").mkdir()
    (project.folder / "data" / "greetings.csv").write_text("id,text\n1,good\n2,bad\n")
    load(project, PIPELINE)
    ticks = Ticks(project, instance)
    ticks.materialize("requests", "batches")
    load(project, PIPELINE.replace("max_tokens", "max_token"))

    first = ticks.tick()
    assert not first.run_requests
    assert "greetings: its file is broken, so nothing is sent, while answers are collected" in first.skip_message
    assert "params.max_token: " in first.skip_message
    assert "greetings: 1 batch is left" in first.skip_message
    (event,) = [event for event in first.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert (event.check_name, event.passed) == (PIPELINE_FILE_CHECK, False)
    assert event.asset_key == dg.AssetKey(["greetings", "results"])

    emulator.end_batches()
    ledger("update batch set next_poll_at = 0, next_download_at = 0")
    second = ticks.tick()
    assert [event for event in second.asset_events if isinstance(event, dg.AssetCheckEvaluation)] == []
    assert ledger("select state from batch") == [("collected",)]
    with open_root() as root:
        folder = Path(root.settings.root) / "greetings"
    (stored,) = (folder / "responses").glob("*.parquet")
    assert pq.read_metadata(stored).num_rows == 2
    assert not list(folder.glob("results/**/*.parquet"))
    assert not ticks.tick().run_requests

    load(project, PIPELINE)
    (request,) = ticks.tick().run_requests
    assert dg.AssetKey(["greetings", "results"]) in (request.asset_selection or [])
    ticks.materialize("results")
    assert pq.read_table(folder / "results").num_rows == 2
    assert len(emulator.log()) == 1


def test_lines_of_fields() -> None:
    messages = "    messages:\n      - role: user\n        content: x\n"
    text = f"type: a\nattributes:\n  params:\n{messages}---\nattributes: {{}}\n"
    assert field_line(text, "params.messages[0].content") == 6
    assert field_line(text, "params.messages[0].no_such (system.md)") == 5
    assert field_line(text, "params.messages.0.role") == 5
    assert field_line(text, "type") == 1
    assert field_line(text, "params.messages", document=1) == 8
    assert field_line(text, "params", document=7) is None
    assert field_line("a: [", "a") is None


def test_a_file_with_merges_aliases_and_dates_can_be_read() -> None:
    text = (
        "type: a.B\nattributes:\n  one: &one {day: 2026-11-31}\n  two: {<<: *one}\n  three: {<<: [*one, *one]}\n"
    )
    assert unreadable("defs.yaml", text) is None


def test_every_broken_file_looks_broken(project: Project) -> None:
    """The commands that do not load the definitions ask `batch-assets check` only if a file looks broken."""
    folder = project.folder / project.package / "defs"
    file = folder / "greetings" / "defs.yaml"
    good = PIPELINE + "  schedule: 0 2 * * mon-fri\n"
    project.write("defs/good/component.yaml", GOOD.replace("data/greetings.csv", "'{{ env.HOME }}/a.csv'"))
    for text in (good, "type: .Mine\n", "type: dagster.Component\nattributes: {any: '{{ thing }}'}\n"):
        project.write("defs/greetings/defs.yaml", text)
        assert not any_looks_broken(pipeline_files(folder), project.folder)
    kinds = {kind: change(PIPELINE) for kind, (change, *_) in {**OF_COMPONENTS, **OF_DAGSTER}.items()}
    kinds |= {"copy": GOOD, "copy in one file": f"{good}---{good}", "minute 99": good.replace("0 2", "99 2")}
    only_dagster_knows = {
        "post-processing without a list",
        "component without attributes",
        "post-processing",
        "field of post-processing",
        "no component",
        "module of variables",
    }
    for kind in kinds.keys() - only_dagster_knows:
        file.write_text(kinds[kind].lstrip("\n"))
        assert any_looks_broken(pipeline_files(folder), project.folder), kind
    file.write_text(PIPELINE)
    project.write("defs/good/component.yaml", GOOD + "  retry: 3\n")
    assert any_looks_broken(pipeline_files(folder), project.folder)


@pytest.mark.parametrize(
    "looks", ["is none", "is not none", "== 'prod'", "in ['a', 'b']", "and true", "or 'a.csv'"]
)
def test_a_variable_that_is_not_set_may_be_looked_at(looks: str) -> None:
    fields = {"watch": f"{{{{ env.NOPE {looks} }}}}", "sink": "{{ not env.NOPE }}"}
    assert variable_without_value(fields, ["env"]) is None
    fields["name"] = "of {{ env.NOPE }}"
    problem = variable_without_value(fields, ["env"])
    assert problem is not None and problem[0] == "name"
