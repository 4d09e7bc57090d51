"""Mistakes in a pipeline are found when it is loaded. Errors name the file and the field."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.core.pipeline.load import load_pipeline

from ..support import params

GOOD: dict[str, Any] = {"name": "asked", "dataset": {"path": "a.csv"}, "params": params()}


def _csv(**options: Any) -> dict[str, Any]:
    return {"dataset": {"path": "a.csv", "csv": options}}


def refused(tmp_path: Path, **changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_pipeline({**GOOD, **changes}, folder=tmp_path, source="asked/defs.yaml")
    assert caught.value.source == "asked/defs.yaml"
    return caught.value


def test_a_valid_pipeline_is_loaded_without_reading_its_dataset(tmp_path: Path) -> None:
    assert load_pipeline(GOOD, folder=tmp_path).name == "asked"


def test_lists_may_be_arrays(tmp_path: Path) -> None:
    dataset = {"path": "{partition}.csv", "columns": np.array(["x", "y"])}
    pipeline = load_pipeline(
        {**GOOD, "dataset": dataset, "partitions": {"static": np.array(["a", "b"])}}, folder=tmp_path
    )
    assert pipeline.config.dataset.columns == ["x", "y"]


def test_a_rescue_whose_answers_are_not_followed_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    retry: dict[str, Any] = {"truncated": {"times": 1}, "paused": 2}
    for more in ({"retry": retry}, {"deadline": "6h", "rescue": "live"}):
        load_pipeline(GOOD | more, folder=tmp_path)
    assert caplog.messages == []
    load_pipeline(GOOD | {"deadline": "6h", "rescue": "live", "retry": retry}, folder=tmp_path)
    (text,) = caplog.messages
    assert "rescue: answers of live calls are not asked again or continued, as retry.truncated and retry." in text


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"name": "a-b"}, "name", "letters, digits and underscores"),
        ({"name": "../x"}, "name", "letters"),
        ({"dataset": {}}, "dataset", "exactly one of path, files, sql and asset; got none"),
        ({"dataset": {"path": "a.csv", "files": "b"}}, "dataset", "got path and files"),
        ({"dataset": {"path": "a.csv", "sep": ";"}}, "dataset.sep", "fields here: path, files, sql, url_env"),
        ({"dataset": {"path": "a.csv", "url_env": "X"}}, "dataset", "url_env goes with sql, not with path"),
        ({"dataset": {"files": "docs", "csv": {}}}, "dataset", "csv goes with path, not with files"),
        (_csv(sep=";"), "dataset.csv.sep", "fields here: delimiter, encoding"),
        (_csv(delimiter="||"), "dataset.csv.delimiter", "one ASCII character"),
        (_csv(delimiter="§"), "dataset.csv.delimiter", "one ASCII character"),
        (_csv(quote="\n"), "dataset.csv.quote", "no line break"),
        (_csv(escape='"'), "dataset.csv", "must be different characters"),
        (_csv(encoding="latin-99"), "dataset.csv.encoding", "latin-1, cp1252"),
        (_csv(encoding="rot13"), "dataset.csv.encoding", "'rot13' is not"),
        (_csv(encoding="idna"), "dataset.csv.encoding", "'idna' is not"),
        (_csv(header=["a", "a"]), "dataset.csv.header", "and a different one"),
        (_csv(header=[]), "dataset.csv.header", "every column a name"),
        ({"nonsense": 1}, "nonsense", "no such field"),
        ({"batching": {"max_requests": 100_001}}, "batching.max_requests", "give at most 100000, not 100001"),
        (
            {"dataset": {"path": "a.csv", "retry": {}}},
            "dataset.retry",
            "here: it is a field of the pipeline, so indent",
        ),
        ({"max_failed": True}, "max_failed", "give a number, not true (yes and on mean true too)"),
        ({"confirm_above": True}, "confirm_above", "give a number, not true"),
        ({"budget": {"max_usd": True, "per": "day"}}, "budget.max_usd", "give a number, not true"),
        ({"retry": {"truncated": {"times": False}}}, "retry.truncated.times", "give a number, not false"),
        ({"retry": {"truncated": {"max_tokens": True}}}, "retry.truncated.max_tokens", "give a number, not true"),
        ({"pilot": True}, "pilot", "give a number of rows or a map of its fields, not true"),
        ({"schedule": 5}, "schedule", 'give a text such as "0 2 * * *" or a map of its fields, not 5'),
        ({"rescue": 5}, "rescue", "give live or a map of its fields, not 5"),
        ({"cost_center": ""}, "cost_center", "the text is empty: give one, or leave the field out"),
        ({"name": ""}, "name", "the text is empty: give one"),
        ({"dataset": {"path": "a.csv", "key": ""}}, "dataset.key", "with {'': name} for a column that has none"),
        ({"dataset": {"path": "a.csv", "key": 5}}, "dataset.key", "a text or a map, not 5; put a text in quotes"),
        ({"dataset": {"path": "a.csv", "key": {"a": 5}}}, "dataset.key.a", "give a text, not 5"),
        ({"dataset": {"path": "a.csv", "key": {"id": ""}}}, "dataset.key", "a column of the results needs a name"),
        ({"dataset": {"path": "a.csv", "columns": "a"}}, "dataset.columns", "give a list or a map, not a"),
        ({"dataset": {"path": "a.csv", "columns": [""]}}, "dataset.columns", "of the results needs a name"),
        ({"batching": {"max_requests": 0}}, "batching.max_requests", "give at least 1, not 0"),
        ({"batching": {"max_mb": 257}}, "batching.max_mb", "256"),
        ({"batching": {"max_mb": 0}}, "batching.max_mb", "give more than 0, not 0"),
        ({"retry": {"max_attempts": 0}}, "retry.max_attempts", "give at least 1, not 0"),
        ({"params": {"max_tokens": 1, "messages": []}}, "params.model", "required"),
        ({"params": params(stream=True)}, "params.stream", "a batch refuses it"),
        ({"params": params(max_tokens=0)}, "params.max_tokens", "a batch refuses 0"),
        ({"params": params(betas=["x"])}, "params.betas", "header"),
        ({"params": params(speed="fast")}, "params.speed", "a batch refuses it"),
        ({"params": params(temperature=1, model="claude-haiku-4-5")}, "params.temperature", ": 2023-06-01"),
        ({"params": params(temperature=1)}, "params.temperature", "claude-haiku-5-5 refuses it, under every"),
        ({"params": params("{{ oops")}, "params.messages[0].content", ""),
        (
            {
                "output_schema": {
                    "type": "object",
                    "properties": {"attempts": {"type": "integer"}},
                    "additionalProperties": False,
                }
            },
            "output_schema",
            "'attempts' has the name of a results column",
        ),
        (
            {"dataset": {"path": "a.csv", "key": "k", "columns": ["cost_usd"]}},
            "dataset.columns",
            "`cost_usd: dataset_cost_usd`",
        ),
        (
            {"dataset": {"path": "a.csv", "key": "k", "columns": ["partition"]}},
            "dataset.columns",
            "`partition: dataset_partition`",
        ),
        ({"dataset": {"path": "a.csv", "key": "batch_id"}}, "dataset.key", "`key: {batch_id: dataset_batch_id}`"),
        ({"dataset": {"path": "a.csv", "key": {"a": "custom_id"}}}, "dataset.key", "the same name"),
        ({"dataset": {"path": "a.csv", "key": {"a": "b", "c": "d"}}}, "dataset.key", "got 2 columns"),
        ({"dataset": {"path": "a.csv", "key": {}}}, "dataset.key", "got 0 columns"),
        (
            {"dataset": {"path": "a.csv", "columns": {"a": "x", "b": "x"}}},
            "dataset.columns",
            "carried column 'b' and the carried column 'a'",
        ),
    ],
)
def test_an_error_names_the_field_of_the_mistake(
    tmp_path: Path, changes: dict[str, Any], field: str, problem: str
) -> None:
    error = refused(tmp_path, **changes)
    assert error.field == field
    assert problem in error.problem


def test_sampling_params_are_allowed_with_the_api_version_that_accepts_them(tmp_path: Path) -> None:
    attributes = {**GOOD, "params": params(temperature=1), "anthropic_version": "2023-06-01"}
    assert load_pipeline(attributes, folder=tmp_path).headers == {"anthropic-version": "2023-06-01"}


def test_an_api_version_may_be_a_date_that_yaml_has_parsed(tmp_path: Path) -> None:
    pipeline = load_pipeline({**GOOD, "anthropic_version": date(2026, 10, 21)}, folder=tmp_path)
    assert pipeline.headers == {"anthropic-version": "2026-10-21"}
    error = refused(tmp_path, anthropic_version="latest")
    assert (error.field, "a date like 2023-06-01" in error.problem) == ("anthropic_version", True)


def test_output_schema_needs_an_output_config_that_is_written_out(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    error = refused(tmp_path, params=params(output_config="{{ c }}"), output_schema=schema)
    assert error.field == "params.output_config"


def test_output_schema_and_a_format_in_the_params_exclude_each_other(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False}
    body = params(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert refused(tmp_path, params=body, output_schema=schema).field == "params.output_config.format"


def test_a_schema_in_the_params_is_refused_with_a_hint_at_output_schema(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False}
    body = params(output_config={"format": {"type": "json_schema", "schema": schema}})
    error = refused(tmp_path, params=body)
    assert (error.field, "`output_schema`, beside `params`" in error.problem) == (
        "params.output_config.format",
        True,
    )
    for by_row in ("{{ form }}", {"type": "json_schema", "schema": "{{ schema }}"}):
        load_pipeline({**GOOD, "params": params(output_config={"format": by_row})}, folder=tmp_path)


def _blocks(
    model: type[BaseModel], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every field of a pipeline file, with the path of its block. 0 is the first entry of a list."""
    for name, field in model.model_fields.items():
        yield path, name
        in_list = (0,) if get_origin(field.annotation) is list else ()
        for kind in get_args(field.annotation) or (field.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _blocks(kind, (*path, name, *in_list))


def test_every_misspelled_field_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    fields = [(path, name) for path, name in _blocks(PipelineConfig) if len(name) > 3]
    assert len(fields) > 80
    for path, name in fields:
        typo = name[0] + name[2:]
        value: Any = {typo: 1}
        for step in reversed(path):
            value = [value] if step == 0 else {step: value}
        with pytest.raises(ConfigError) as caught:
            load_pipeline(value, folder=tmp_path)
        where = ".".join(map(str, (*path, typo)))
        assert str(caught.value).endswith(f"defs.yaml: {where}: there is no such field: did you mean `{name}`?")
