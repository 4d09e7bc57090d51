"""The documentation has everything that a user can write or read, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import click
import dagster as dg
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batch_assets import MessageBatchComponent, definitions
from batch_assets.cli import main as batch_assets_command
from batch_assets.core.answers import result_columns
from batch_assets.dagster import keys
from tests import documentation
from tests.documentation import MINIMAL, PROJECT, SCHEMA, page, pages

# Raised in the code of Dagster's own components.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
SOURCES = sorted((PROJECT / "batch_assets").rglob("*.py"))


# --- Names -----------------------------------------------------------------------------------------------------


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a pipeline file as a path: dataset, dataset.path, dataset.csv.delimiter."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for block in _models_in(field.annotation):
            yield from fields_of(block, f"{prefix}{name}.")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models_in(part)]


FIELDS = dict(fields_of(MessageBatchComponent))
REFERENCE = "docs/pipeline.md"


def unquoted(cell: str) -> str:
    return cell.strip().strip("`")


def test_every_field_of_a_pipeline_file_has_its_row() -> None:
    rows = [row for heading in _headings(REFERENCE) for row in page(REFERENCE).table(heading)]
    described = [field.strip("` ") for row in rows if len(row) == 4 for field in row[0].split(",")]
    assert sorted(described) == sorted(FIELDS)


def test_the_defaults_in_the_reference_are_those_of_the_code() -> None:
    for heading in _headings(REFERENCE):
        for row in page(REFERENCE).table(heading):
            if len(row) != 4:
                continue
            names, default, description, example = row
            assert description and "`" in example, row
            for name in names.split(","):
                field = FIELDS[unquoted(name)]
                if field.is_required():
                    expected = "required"
                else:
                    value = field.get_default(call_default_factory=True)
                    plain = not isinstance(value, BaseModel) and value not in (None, [], {})
                    expected = f"`{_as_yaml(value)}`" if plain else ""
                assert default == expected, name


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) and value.isalnum() else json.dumps(value)


def _headings(name: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", page(name).prose, re.M)


def _commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(_commands(batch_assets_command)))
def test_every_option_of_the_command_line_has_its_row(name: str, command: click.Command) -> None:
    options = {max(option.opts, key=len) for option in command.params if isinstance(option, click.Option)}
    rows = page("docs/command-line.md").table(f"batch-assets {name}") if options else []
    described = {unquoted(row[0]).split()[0] for row in rows}
    assert described == options - {"--help"}


def _environment() -> set[str]:
    """The variables that the package names. Only the SDK reads the last ones, and we never read their values."""
    names = set()
    for source in SOURCES:
        text = source.read_text("utf-8")
        names |= set(re.findall(r"\bBATCH_ASSETS_[A-Z_]*[A-Z]\b", text))
        names |= set(re.findall(r"[\"'](ANTHROPIC_[A-Z_]*[A-Z])[\"']", text))
    return names


def test_every_environment_variable_has_its_row() -> None:
    rows = page("docs/deploy.md").table("Environment variables")
    described = [name for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])]
    assert {name for name in described if name.startswith(("BATCH_ASSETS_", "ANTHROPIC_"))} >= _environment()
    assert len(set(described)) == len(described)


def test_every_column_of_results_has_its_row() -> None:
    described = [unquoted(row[0]) for row in page("docs/results.md").table("Columns")]
    expected = [
        field.name
        for field in (*result_columns.BEFORE_OUTPUT, result_columns.TOOL_CALLS, *result_columns.AFTER_OUTPUT)
    ]
    assert [name for name in described if not name.startswith("*")] == expected
    assert result_columns.PARTITION in page("docs/results.md").spans()


def test_every_key_of_metadata_and_tags_is_documented() -> None:
    expected = {value for value in vars(keys).values() if isinstance(value, str) and re.match(r"\w+/\w+$", value)}
    assert len(expected) > 50
    assert expected - set(page("docs/metadata.md").spans()) == set()


@pytest.fixture(scope="module")
def spans() -> set[str]:
    return {span for page_ in pages() for span in page_.spans()}


@pytest.fixture(scope="module")
def whole() -> dg.Definitions:
    """The definitions of two pipelines that together have everything a pipeline can have, and of the project."""
    some = {**MINIMAL, "name": "shown", "output_schema": SCHEMA, "partitions": {"column": "language"}}
    others = {**MINIMAL, "name": "also_shown", "schedule": "0 2 * * *", "watch": True}
    context = dg.ComponentTree.for_test().load_context
    built = [
        MessageBatchComponent.load(_attributes(fields), context).build_defs(context) for fields in (some, others)
    ]
    return dg.Definitions.merge(*built, definitions.defs())


def _attributes(fields: dict[str, Any]) -> BaseModel:
    return MessageBatchComponent.model().model_validate(fields)


def test_every_check_job_and_sensor_is_documented(whole: dg.Definitions, spans: set[str]) -> None:
    repository = whole.get_repository_def()
    names = {key.name for key in whole.resolve_asset_graph().asset_check_keys}
    names |= {name for name in repository.job_names if not name.startswith("__")}
    names |= {definition.name for definition in (*repository.sensor_defs, *repository.schedule_defs)}
    ours = {name for name in names if not name.startswith(("review_triage", "ticket_replies"))}
    normalized = {re.sub(r"^(also_)?shown(?=_|$)", "<name>", name) for name in ours}
    assert {"every_row_once", "<name>", "<name>_cancel", "<name>_schedule", "<name>_watch_sensor"} <= normalized
    assert normalized - spans == set()


# --- Links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", pages(), ids=lambda source: source.name)
def test_every_link_leads_somewhere(source: documentation.Page) -> None:
    for link in source.links():
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (source.path.parent / path).resolve() if path else source.path
        assert target.exists() and target.is_relative_to(PROJECT), f"{source.name}: {link}"
        if anchor:
            assert anchor in documentation.Page(target).anchors(), f"{source.name}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = PROJECT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in page("docs/README.md").links()}
    assert {page_.path for page_ in pages() if page_.path.parent == index.parent} - linked == {index}
