"""`batch-assets check`, and how other commands work beside a broken pipeline file."""

from __future__ import annotations

import re

import pytest

from .support import Project

DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
UNQUOTED = """type: batch_assets.MessageBatchComponent
attributes:
  name: unquoted
  dataset: {path: good.jsonl}
  params:
    model: claude-haiku-5-5
    max_tokens: 50
    messages:
      - role: user
        content: {{ text }}
"""
TYPO = "batch_assets/defs/typo/defs.yaml:1"
REMEDY = 'YAML takes a value that begins with a brace for a map: put it in quotes, "{{ text }}"'


@pytest.fixture
def broken(project: Project) -> Project:
    """A project with one pipeline that is right and two that are broken."""
    project.add_pipeline("good", ["one"])
    project.add_pipeline("typo", ["one"], retry={"max_atempts": 3}, max_failed=7)
    folder = project.folder / "batch_assets" / "defs" / "unquoted"
    folder.mkdir()
    (folder / "defs.yaml").write_text(UNQUOTED)
    return project


def test_all_mistakes_are_printed_with_file_line_and_field(broken: Project) -> None:
    done = broken.run("check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{TYPO}: retry.max_atempts: there is no such field: did you mean `max_attempts`?",
        f"{TYPO}: max_failed: give at most 1, not 7",
        f"batch_assets/defs/unquoted/defs.yaml:10: {REMEDY}",
    ]
    assert done.stderr.splitlines() == [f"{broken.folder}: 2 of 3 pipeline files broken"]
    assert broken.run("check", "typo").stdout.count("\n") == 2
    right = broken.run("check", "good")
    assert (right.returncode, right.stdout, right.stderr) == (
        0,
        f"{broken.folder}: 1 pipeline file is right\n",
        "",
    )
    gone = broken.run("check", "gone").stderr
    assert "there is no pipeline 'gone' in this project" in gone and "pipelines: good, typo, unquoted" in gone
    assert "unquoted is left out, because its file is broken: batch_assets/defs/unquoted/defs.yaml:10: " in gone


def test_the_other_pipelines_run_and_the_broken_one_is_named(broken: Project) -> None:
    done = broken.run("run", "good")
    assert done.returncode == 0, done.stderr
    assert "typo is left out, because its file is broken: batch_assets/defs/typo/defs.yaml:1: retry" in done.stderr
    assert (
        f"unquoted is left out, because its file is broken: batch_assets/defs/unquoted/defs.yaml:10: {REMEDY}"
        in (done.stderr)
    )
    assert done.stderr.count("max_atempts") == 1
    status = broken.run("status")
    assert (status.returncode, status.stderr) == (0, "")
    named = [f"broken file: {line}" for line in broken.run("check").stdout.splitlines()]
    assert len(named) == 3 and status.stdout.splitlines()[1:4] == named
    listed = broken.run("list")
    assert (listed.returncode, listed.stderr.splitlines()) == (0, named)
    failed = broken.run("run", "unquoted")
    assert failed.returncode == 1
    assert failed.stderr == f"Error: batch_assets/defs/unquoted/defs.yaml:10: {REMEDY}\n"
    # Its dataset and its sink are in the file, so that rows would be left there.
    erased = broken.run("erase", "typo", "--key", "1")
    assert erased.returncode == 1
    assert "Error: batch_assets/defs/typo/defs.yaml:1: retry.max_atempts" in erased.stderr
    assert len(broken.accepted()) == 1


def test_a_project_with_dagsters_own_loader(broken: Project) -> None:
    """What Dagster cannot read is reported by file and line too, although no pipeline loads."""
    package = broken.folder / "src" / "shop"
    package.mkdir(parents=True)
    (broken.folder / "batch_assets" / "defs").rename(package / "defs")
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    (broken.folder / "pyproject.toml").write_text('[tool.dg]\n[tool.dg.project]\nroot_module = "shop"\n')
    for command in (["check"], ["run", "good"]):
        done = broken.run(*command)
        assert done.returncode == 1
        assert done.stderr == f"Error: src/shop/defs/unquoted/defs.yaml:10: {REMEDY}\n"
    (package / "defs" / "unquoted" / "defs.yaml").unlink()
    assert broken.run("check").stdout.startswith("src/shop/defs/typo/defs.yaml:1: retry.max_atempts: ")
    assert broken.run("run", "good").returncode == 0


def _faults(project: Project, *arguments: str) -> list[str]:
    """What a check of pipelines that do not fit their datasets prints, without the name of the file."""
    done = project.run("check", *arguments)
    assert (done.returncode, done.stderr) == (1, "1 of 1 pipeline does not fit its dataset\n"), done.stdout
    return [re.split(r"defs\.yaml(?::1)?: ", line, maxsplit=1)[1] for line in done.stdout.splitlines()]


def test_a_pipeline_is_checked_with_its_dataset(bare_project: Project) -> None:
    project, columns = bare_project, "its columns: id, text"
    message = {"role": "user", "content": "{{ txet }} {{ note }}"}
    params = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [message]}
    project.add_pipeline("read", ["one"], params=params)
    assert _faults(project, "read") == [
        f"params.messages[0].content: the template reads 'note', which is not a column of read.jsonl; {columns}",
        "params.messages[0].content: the template reads 'txet', which is not a column of read.jsonl "
        f"(did you mean 'text'?); {columns}",
    ]
    assert project.run("check").returncode == 0
    at_line = "batch_assets/defs/read/defs.yaml:1: params.messages[0].content: the template reads 'note'"
    assert project.run("check", "read").stdout.startswith(at_line)
    assert project.run("preview", "read").stderr.startswith(f"Error: {at_line}")
    project.add_pipeline("keyed", ["one"], dataset={"path": "keyed.jsonl", "key": "idd"})
    assert _faults(project, "keyed") == [
        f"dataset.key: keyed.jsonl has no column 'idd' (did you mean 'id'?); {columns}"
    ]
    project.add_pipeline("gone", ["one"], dataset={"path": "goen.jsonl", "key": "id"})
    assert _faults(project, "gone")[0].startswith("dataset.path: ")
    project.add_pipeline("empty_texts", ["", ""])
    assert _faults(project, "empty_texts")[0].startswith(
        "the first 2 rows are rejected, so there is no request; row 0: "
    )
    project.add_pipeline("fits", ["", "one"])
    (project.folder / "divided.csv").write_text("id;text\n1;one\n")
    whole_row = {**params, "messages": [{"role": "user", "content": "{{ row | tojson }}"}]}
    project.add_pipeline("divided", [], dataset={"path": "divided.csv"}, params=whole_row)
    message["content"] = "{text}"
    project.add_pipeline("same", ["one"], params=params)
    fits = project.run("check", "fits", "divided", "same")
    assert fits.returncode == 0
    assert fits.stderr == (
        "warning: batch_assets/defs/divided/defs.yaml:1: dataset: divided.csv has one column, 'id;text': if ';' "
        'is between its fields, add `csv: {delimiter: ";"}`\n'
        "warning: batch_assets/defs/same/defs.yaml:1: params: no template reads a column of same.jsonl, so all "
        "rows get one and the same prompt: that is one request, which is paid once. "
        "{{ text }} inserts the column 'text'\n"
    )
    assert not (project.folder / "data").exists()


def test_an_unknown_model_and_partitions_are_named(bare_project: Project) -> None:
    params = {
        "model": "claude-hiaku-5-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "{{ text }}"}],
    }
    bare_project.add_pipeline("misspelled", ["one"], params=params)
    done = bare_project.run("check", "misspelled")
    assert done.returncode == 0
    assert (
        "warning: batch_assets/defs/misspelled/defs.yaml:1: params.model: 'claude-hiaku-5-5' has no price"
        in done.stderr
    )
    assert "did you mean 'claude-haiku-5-5'?" in done.stderr
    (bare_project.folder / "of_a.jsonl").write_text('{"id": 1, "txt": "one"}\n')
    partitions = {"static": ["a", "b"]}
    dataset = {"path": "of_{partition}.jsonl", "key": "id"}
    bare_project.add_pipeline("parted", [], dataset=dataset, partitions=partitions)
    left_out = bare_project.run("check", "parted")
    assert (left_out.returncode, left_out.stdout) == (0, f"{bare_project.folder}: 1 pipeline file is right\n")
    assert "its dataset was not read: name a partition with --partition" in left_out.stderr
    assert (
        "reads 'text', which is not a column of of_a.jsonl"
        in _faults(bare_project, "parted", "--partition", "a")[0]
    )
    assert "has no partition 'c'" in bare_project.run("check", "parted", "--partition", "c").stdout
    assert "--partition needs a NAME" in bare_project.run("check", "--partition", "a").stderr


def test_a_dataset_that_is_no_asset_breaks_its_pipeline_alone(bare_project: Project) -> None:
    bare_project.add_pipeline("good", ["one"])
    bare_project.add_pipeline("lost", ["one"], dataset={"asset": "nowhere/at_all"})
    done = bare_project.run("check")
    assert (done.returncode, done.stdout) == (
        1,
        "batch_assets/defs/lost/defs.yaml:1: dataset.asset: there is no asset nowhere/at_all: "
        "give the key of an asset that the code location has, such as schema/table\n",
    )
    assert done.stderr == f"{bare_project.folder}: 1 of 2 pipeline files broken\n"
