"""`python -m deploy.helm_values` writes deploy/helm-values.yaml: values for Dagster's Helm chart.

The chart writes a dagster.yaml of its own, and its values know only some of the settings. So its blocks for the
settings of this project are switched off, and the blocks of dagster.yaml take their place unchanged.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
VALUES = Path(__file__).with_name("helm-values.yaml")
_HEADER = """\
# An example of values for Dagster's Helm chart, which was never installed by us: see docs/deploy.md.
# Made by `python -m deploy.helm_values` from dagster.yaml and the version in pyproject.toml; a test compares them.
#
# Two Secrets are needed. dagster-postgresql-secret has the password of Dagster's database (postgresql-password).
# batch-assets has ANTHROPIC_API_KEY, BATCH_ASSETS_LEDGER and the credentials of the bucket.
"""
# The only block that the chart always writes.
_ALWAYS_WRITTEN = "telemetry"


def values() -> dict[str, Any]:
    """Return the values, from the files of the project."""
    settings = yaml.safe_load((PROJECT / "dagster.yaml").read_text("utf-8"))
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    image = {"repository": "batch-assets", "tag": version, "pullPolicy": "IfNotPresent"}
    return {
        "dagster-user-deployments": {"enabled": True, "deployments": [_code_server(image)]},
        "dagsterWebserver": {"image": image},
        "dagsterDaemon": {
            "image": image,
            "runMonitoring": {"enabled": False},
            "runRetries": {"enabled": False},
            "sensors": {"useThreads": False},
        },
        "runLauncher": {"type": "K8sRunLauncher"},
        "postgresql": {
            "enabled": False,
            "postgresqlHost": "postgres.example.com",
            "postgresqlUsername": "dagster",
            "postgresqlDatabase": "dagster",
        },
        "generatePostgresqlPasswordSecret": False,
        "global": {"postgresqlSecretName": "dagster-postgresql-secret"},
        "retention": {"enabled": False},
        "telemetry": settings[_ALWAYS_WRITTEN],
        "additionalInstanceConfig": {name: block for name, block in settings.items() if name != _ALWAYS_WRITTEN},
    }


def _code_server(image: dict[str, str]) -> dict[str, Any]:
    return {
        "name": "batch-assets",
        "image": image,
        "dagsterApiGrpcArgs": ["-m", "batch_assets.definitions"],
        "port": 4000,
        "env": [{"name": "BATCH_ASSETS_ROOT", "value": "s3://batch-assets/root"}],
        "envSecrets": [{"name": "batch-assets"}],
        "includeConfigInLaunchedRuns": {"enabled": True},  # runs get the same variables
    }


class _WithoutAliases(yaml.SafeDumper):
    """Writes a value that occurs several times each time, as a person would."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text() -> str:
    """Return the content of the file."""
    return _HEADER + yaml.dump(values(), Dumper=_WithoutAliases, sort_keys=False)


if __name__ == "__main__":
    VALUES.write_text(text(), "utf-8")
    sys.stdout.write(f"{VALUES}\n")
