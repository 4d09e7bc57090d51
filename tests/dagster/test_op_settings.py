"""`op` in the pipeline file: how Dagster runs the step of each stage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.core.errors import ConfigError
from tests.projects import Project, whole_text

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
(DOCUMENTED,) = (text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "op:" in text)
MakeAssets = Callable[..., list[dg.AssetsDefinition]]


def _ops(assets: list[dg.AssetsDefinition]) -> dict[str, dg.OpDefinition]:
    return {asset.key.path[-1]: asset.op for asset in assets}  # type: ignore[misc]


def test_the_documented_settings_reach_each_step(project: Project) -> None:
    assets = [asset for asset in project.load(DOCUMENTED).assets or [] if isinstance(asset, dg.AssetsDefinition)]
    ops = _ops(assets)
    limits = {
        stage: json.loads(op.tags["dagster-k8s/config"])["container_config"]["resources"]["requests"]
        for stage, op in ops.items()
        if op.tags
    }
    assert limits == {"requests": {"cpu": "2", "memory": "2Gi"}, "results": {"cpu": "1", "memory": "4Gi"}}
    assert {stage: op.pool for stage, op in ops.items()} == {
        "requests": None,
        "batches": "message_batches_eu",
        "results": None,
        "spend": None,
    }
    assert {stage: op.retry_policy for stage, op in ops.items()} == {
        "requests": dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL),
        "batches": None,
        "results": None,
        "spend": None,
    }


def test_without_settings_batches_has_its_default_pool(make_assets: MakeAssets) -> None:
    ops = _ops(make_assets())
    assert {stage: op.pool for stage, op in ops.items()} == {
        "requests": None,
        "batches": "message_batches",
        "results": None,
    }
    assert [op.tags for op in ops.values()] == [{}] * 3
    assert _ops(make_assets(op={"results": {"retry_policy": {"max_retries": 2, "delay": 1, "jitter": "full"}}}))[
        "results"
    ].retry_policy == dg.RetryPolicy(max_retries=2, delay=1, jitter=dg.Jitter.FULL)


@pytest.mark.parametrize(
    ("settings", "field", "problem"),
    [
        ({"request": {}}, "op.request", "there is no such field: did you mean `requests`?"),
        (
            {"requests": {"tag": {}}},
            "op.requests.tag",
            "there is no such field: did you mean `tags`?",
        ),
        ({"requests": {"tags": "large"}}, "op.requests.tags", "give a map, not large"),
        ({"requests": {"pool": "two words"}}, "op.requests.pool", "the name of a pool has no spaces"),
        (
            {"batches": {"retry_policy": {"max_retries": 0}}},
            "op.batches.retry_policy.max_retries",
            "give at least 1, not 0",
        ),
        ({"batches": {"retry_policy": {"jitter": "full"}}}, "op.batches.retry_policy", "give `delay`, in seconds"),
        (
            {"batches": {"retry_policy": {"delay": 1, "backoff": "cubic"}}},
            "op.batches.retry_policy.backoff",
            "give one of 'linear' or 'exponential', not cubic",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_field(
    make_assets: MakeAssets, project: Project, settings: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"(name='greetings'): {field}: ")) as caught:
        make_assets(op=settings)
    assert problem in str(caught.value)
    text = re.sub(r"(?s)  op:\n.*", f"  op: {json.dumps(settings)}\n", DOCUMENTED)
    with pytest.raises(Exception) as caught_in_yaml:  # Dagster wraps it in errors of its own
        project.load(text)
    error = whole_text(caught_in_yaml.value)
    assert f"defs/greetings/defs.yaml: {field}: " in error and problem in error


def test_a_tag_without_a_json_form_is_named(make_assets: MakeAssets) -> None:
    with pytest.raises(ConfigError, match=r"op\.requests\.tags: since: the value must be text, or JSON"):
        make_assets(op={"requests": {"tags": {"since": date(2026, 1, 1)}}})


def test_a_tag_may_be_filled_in_from_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY", "8Gi")
    text = DOCUMENTED.replace("4Gi", '"{{ env.MEMORY }}"')
    assets = [asset for asset in project.load(text).assets or [] if isinstance(asset, dg.AssetsDefinition)]
    assert '"memory": "8Gi"' in _ops(assets)["results"].tags["dagster-k8s/config"]
