"""The keyword arguments of `build_message_batch_assets` are the fields of a pipeline file, and stay so."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import dagster as dg
import pytest
from pydantic import BaseModel

from batch_assets import build_message_batch_assets
from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.config import PipelineConfig
from batch_assets.dagster.pipeline_fields import PipelineFields
from batch_assets.dagster.pipelines import pipelines_in

HINTS = get_type_hints(PipelineFields)


def _classes_in(annotation: Any) -> set[type]:
    """The classes that an annotation is made of: list[str] | None gives list, str and NoneType."""
    parts = get_args(annotation)
    if not parts:
        return {annotation} if isinstance(annotation, type) else set()
    return {class_ for part in parts for class_ in _classes_in(part)}


def test_the_arguments_are_the_fields_of_a_pipeline_file() -> None:
    fields = PipelineConfig.model_fields
    assert set(HINTS) == set(fields)
    assert PipelineFields.__required_keys__ == {name for name, field in fields.items() if field.is_required()}


def test_no_argument_beside_them_has_the_name_of_a_field() -> None:
    named = set(inspect.signature(build_message_batch_assets).parameters) - {"fields"}
    assert named == {"folder", "project", "render_request", "parse_message", "output_columns", "tool_functions"}
    assert named.isdisjoint(PipelineConfig.model_fields)


@pytest.mark.parametrize("name", sorted(PipelineConfig.model_fields))
def test_every_argument_takes_the_block_of_its_field(name: str) -> None:
    blocks = {
        class_
        for class_ in _classes_in(PipelineConfig.model_fields[name].annotation)
        if issubclass(class_, BaseModel)
    }
    assert blocks <= _classes_in(HINTS[name])
    assert PipelineConfig.model_fields[name].is_required() or type(None) in _classes_in(HINTS[name])


def test_a_whole_config_goes_in_as_its_fields(tmp_path: Path) -> None:
    config = PipelineConfig.model_validate(
        {
            "name": "whole",
            "dataset": {"path": "rows.csv", "key": "id"},
            "params": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "{{ text }}"}]},
            "schedule": "0 2 * * *",
            "batching": {"max_requests": 7},
            "notify": [{"webhook": {"url_env": "HOOK", "secret_env": "SECRET"}}],
        }
    )
    assets = build_message_batch_assets(folder=tmp_path, **dict(config))  # type: ignore[misc]
    specs = [spec for asset in assets for spec in asset.specs]
    assert pipelines_in(specs)["whole"].pipeline.config == config


def test_what_is_none_has_its_default_and_what_is_unknown_is_refused(
    make_assets: Callable[..., list[dg.AssetsDefinition]],
) -> None:
    assets = make_assets(retry=None, betas=(), notify=None, max_failed=None)
    (asset, *_) = assets
    config = pipelines_in(asset.specs)["greetings"].pipeline.config
    assert (config.retry.max_attempts, config.betas, config.notify, config.max_failed) == (3, [], [], 0.01)
    with pytest.raises(
        ConfigError, match=r"name='greetings'\): max_fail: there is no such field: did you mean `max_failed`"
    ):
        make_assets(max_fail=0.5)
