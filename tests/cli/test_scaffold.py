"""What `dg scaffold` writes for each kind of dataset: it loads, fits, previews and runs as it is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import ScaffoldRequest

from batch_assets.dagster.scaffold import MessageBatchScaffolder, MessageBatchScaffoldParams
from batch_assets.dagster.scaffold_dataset import Columns, look_at
from tests.media import png

from .support import Project
from .test_asset_dataset import ASSET, MATERIALIZE

ROWS = [
    {"author": "Ann", "letter_id": "x-7", "body": "The parcel came two days late.", "summary": "late"},
    {"author": "Bo", "letter_id": "x-8", "body": "Ten years, and not one seam has opened.", "summary": "fine"},
]
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Count 0/Kids[]>>endobj\n%%EOF\n"
# Runs a command for each of some pipelines, in one process.
EACH = """
import sys
from batch_assets.cli import main

for command, name in [line.split("=") for line in sys.argv[1:]]:
    try:
        main([*command.split(), name])
    except SystemExit as end:
        print(f"{command} {name} ended with {end.code}", flush=True)
"""


def _add_datasets(folder: Path) -> None:
    frame = pd.DataFrame(ROWS)
    (folder / "data").mkdir()
    frame.to_csv(folder / "data/letters.csv", index=False)
    frame.to_csv(folder / "data/divided.csv", index=False, sep=";")
    frame.to_json(folder / "data/letters.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "data/letters.parquet")
    with closing(sqlite3.connect(folder / "letters.db")) as database:
        frame.to_sql("letters", database, index=False)
    for name, content in (
        ("pdfs/a.pdf", PDF),
        ("pdfs/read.me", b"x"),
        ("photos/b.png", png()),
        ("notes/c.txt", b"Hi"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    pd.DataFrame({"n": [1.5, 2.5], "m": [3, 4]}).to_csv(folder / "data/numbers.csv", index=False)
    (folder / "data/header.csv").write_text("letter_id,body\n")
    (folder / "data/nothing.csv").touch()
    (folder / "data/ours.csv").write_text("custom_id,partition,body\na1,p,Dear all\na2,q,Hello you\n")


@pytest.fixture
def scaffold(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Scaffold a pipeline in the project, and return the attributes of its file."""
    _add_datasets(project.folder)
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("LETTERS_URL", f"sqlite:///{project.folder}/letters.db")

    def run(name: str, **options: str) -> dict[str, Any]:
        folder = project.folder / "batch_assets" / "defs" / name
        folder.mkdir()
        request = ScaffoldRequest(
            type_name="batch_assets.MessageBatchComponent",
            target_path=folder,
            scaffold_format="yaml",
            project_root=project.folder,
            params=MessageBatchScaffoldParams.model_validate(options),
            append=False,
        )
        MessageBatchScaffolder().scaffold(request)
        attributes: dict[str, Any] = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
        return attributes

    return run


def test_each_kind_of_dataset_runs_as_it_is(
    project: Project, scaffold: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    letters = {"key": "letter_id"}
    expected: dict[str, tuple[dict[str, str], dict[str, Any], Any]] = {
        "own": ({}, {"path": "batch_assets/defs/own/dataset.csv", "key": "id"}, "{{ text }}"),
        "csv": ({"dataset": "data/letters.csv"}, {"path": "data/letters.csv", **letters}, "{{ body }}"),
        "divided": (
            {"dataset": "data/divided.csv"},
            {"path": "data/divided.csv", "csv": {"delimiter": ";"}, **letters},
            "{{ body }}",
        ),
        "jsonl": ({"dataset": "data/letters.jsonl"}, {"path": "data/letters.jsonl", **letters}, "{{ body }}"),
        "parquet": (
            {"dataset": "data/letters.parquet"},
            {"path": "data/letters.parquet", **letters},
            "{{ body }}",
        ),
        "sql": (
            {"sql": "SELECT * FROM letters", "url_env": "LETTERS_URL"},
            {"sql": "SELECT * FROM letters", "url_env": "LETTERS_URL", **letters},
            "{{ body }}",
        ),
        "ours": (
            {"dataset": "data/ours.csv"},
            {
                "path": "data/ours.csv",
                "key": {"custom_id": "dataset_custom_id"},
                "columns": {"partition": "dataset_partition", "body": "body"},
            },
            "{{ body }}",
        ),
        "numbers": ({"dataset": "data/numbers.csv"}, {"path": "data/numbers.csv"}, "{{ row | tojson }}"),
        "asset": ({"asset": "reviews"}, {"asset": "reviews"}, "{{ row | tojson }}"),
        "pdfs": ({"dataset": "pdfs"}, {"files": "pdfs/*.pdf"}, "document"),
        "photos": ({"dataset": "photos"}, {"files": "photos"}, "image"),
        "notes": ({"dataset": "notes/*.txt"}, {"files": "notes/*.txt"}, "{{ bytes.decode() }}"),
    }
    for name, (options, dataset, asked) in expected.items():
        attributes = scaffold(name, **options)
        assert attributes["dataset"] == dataset
        content = attributes["params"]["messages"][0]["content"]
        assert (content if isinstance(content, str) else content[0]["type"]) == asked
        shown = capsys.readouterr()
        assert [line.split("    ")[0].strip() for line in shown.out.splitlines()[-3:]] == [
            f"batch-assets check {name}",
            f"batch-assets preview {name}",
            f"batch-assets emulator -- batch-assets run {name} --limit 20",
        ]
        assert shown.err == ""
    (project.folder / "batch_assets/defs/reviews.py").write_text(ASSET)
    project.env |= {"DAGSTER_HOME": str(project.folder / "home"), "LETTERS_URL": os.environ["LETTERS_URL"]}
    (project.folder / "home").mkdir()
    assert project.run_python("-c", MATERIALIZE).returncode == 0
    checked = project.run("check", *expected)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    commands = [f"{command}={name}" for name in expected for command in ("preview", "run --limit 20")]
    done = project.run_python("-c", EACH, *commands)
    for name in expected:
        for command in ("preview", "run --limit 20"):
            assert f"{command} {name} ended with 0" in done.stdout, done.stdout + done.stderr
        table = pd.read_parquet(project.folder / "data/emulated" / name / "results")
        assert set(table["result_type"]) == {"succeeded"}
        own_summary = name in ("csv", "divided", "jsonl", "parquet", "sql")
        assert set(table["mood"]) <= {"positive", "neutral", "negative", "mixed"}
        assert table["summary_of_text" if own_summary else "summary"].notna().all()


def test_a_dataset_that_cannot_be_read_is_explained_and_a_pipeline_is_written(
    project: Project, scaffold: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "missing": ({"dataset": "data/none.csv"}, "there is no file or folder"),
        "nothing": ({"dataset": "data/nothing.csv"}, "data/nothing.csv has no rows yet"),
        "header": ({"dataset": "data/header.csv"}, "data/header.csv has no rows yet"),
        "unset": ({"sql": "SELECT 1", "url_env": "NOT_SET"}, "NOT_SET of dataset.url_env is not set"),
    }
    for name, (options, problem) in wrong.items():
        scaffold(name, **options)
        assert problem in capsys.readouterr().err
    checked = {name: project.run("check", name) for name in wrong}
    explained = {name: done.stdout + done.stderr for name, done in checked.items()}
    # Rows may come.
    codes = {"missing": 1, "nothing": 0, "header": 0, "unset": 1}
    assert {name: done.returncode for name, done in checked.items()} == codes
    for name, text in (
        *(("missing", "there is no file or folder"), ("nothing", "has no rows")),
        *(("header", "has no rows"), ("unset", "NOT_SET of dataset.url_env is not set")),
    ):
        assert text in explained[name]


def test_options_that_contradict_each_other_write_nothing(scaffold: Callable[..., dict[str, Any]]) -> None:
    for options, problem in (
        ({"dataset": "a.csv", "asset": "b"}, "give one of"),
        ({"sql": "SELECT 1"}, "--sql needs --url-env"),
        ({"dataset": "https://user:password@host/a.csv"}, "contains a password"),
        ({"model": "claude haiku"}, "not the name of a model"),
    ):
        with pytest.raises(click.ClickException, match=problem):
            MessageBatchScaffoldParams.model_validate(options)


@pytest.mark.parametrize(
    ("columns", "key", "text"),
    [
        ({"text": ["a b", "c d e"], "id": [1, 2]}, "id", "text"),
        ({"text": ["a b", "c d e"]}, None, "text"),  # unique, and yet a text
        ({"title": ["Red", "Blue"], "body": ["long text", "longer text"]}, None, "body"),
        ({"ticket_id": ["a", "a"], "orderId": [1, 2], "t": ["x", "y"]}, "orderId", "t"),
        ({"comment_id": ["a b", "c d"], "t": ["x", "z"]}, None, "t"),
        ({"id": ["x" * 65, "y" * 65], "t": ["x", "z"]}, None, "t"),
        ({"id": ["a b", "c d"]}, None, "id"),
        ({"id": [1.5, 2.5], "t": ["x", "z"]}, None, "t"),
        ({"id": ["a", None], "Case No": ["7/1", "7/2"], "t": ["x x x", "z"]}, "Case No", "t"),
        ({"valid": ["a", "b"], "monkey": ["c", "dd"]}, None, "monkey"),
        ({"id": [1, 2], "n": [3, 4]}, "id", None),
    ],
)
def test_the_key_is_an_id_and_the_text_the_longest(
    tmp_path: Path, columns: dict[str, list[Any]], key: str | None, text: str | None
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    found = look_at({"path": "rows.parquet"}, tmp_path)
    assert (found.problem, found.columns) == (None, Columns(key, text, tuple(columns)))


def test_columns_with_names_of_results_get_other_names_there() -> None:
    columns = Columns("custom_id", "text", ("custom_id", "text", "partition", "Is_OK", "dataset_partition"))
    assert columns.fields == {
        "key": {"custom_id": "dataset_custom_id"},
        "columns": {
            "text": "text",
            "partition": "dataset_dataset_partition",
            "Is_OK": "dataset_Is_OK",
            "dataset_partition": "dataset_partition",
        },
    }
    assert Columns("id", "text", ("id", "text")).fields == {"key": "id"}
    assert Columns("batch_id", "text", ("batch_id", "text")).fields == {"key": {"batch_id": "dataset_batch_id"}}


@pytest.mark.parametrize(
    ("text", "names", "expression", "problem"),
    [
        (
            "Text of review",
            ("Text of review", "row"),
            "row['Text of review']",
            "reads the column 'Text of review'",
        ),
        (None, ("n", "row"), "row | tojson", "reads the whole row: rename the column 'row'"),
        ("Text of review", ("Text of review",), "row['Text of review']", None),
        ("text", ("text", "row"), "text", None),
        ("row", ("id", "row"), "row", None),
        ("rows", ("rows", "row"), "rows", None),
        ("text", ("text", "row_number"), "text", "has a column 'row_number', so its rows are not numbered"),
    ],
)
def test_a_column_is_named_that_is_in_the_way(
    text: str | None, names: tuple[str, ...], expression: str, problem: str | None
) -> None:
    columns = Columns(None, text, names)
    assert columns.expression == expression
    assert len(columns.problems) == (problem is not None)
    assert all(problem is not None and problem in each for each in columns.problems)
