"""The settings of a Dagster instance that this project needs: those of the shipped dagster.yaml.

A copy of that file is part of the package. Only what matters is compared: a deployment may add settings of its
own, and choose its own numbers.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from batch_assets.core.errors import SettingsError
from batch_assets.core.quoting import shell_quoted
from batch_assets.dagster.loading import is_code_server

SHIPPED = Path(__file__).with_name("dagster.yaml")
"""The shipped dagster.yaml, to be copied into a DAGSTER_HOME."""
FILE_NAME = "dagster.yaml"
_QUEUE = "QueuedRunCoordinator"
_log = logging.getLogger("batch_assets")


@dataclass(frozen=True)
class Rule:
    """What one setting must be.

    Attributes:
        path: Where the setting is in dagster.yaml.
        is_met: Whether a value will do; `None` is that of a setting that is absent.
        otherwise: What happens if it is something else.
    """

    path: tuple[str, ...]
    is_met: Callable[[Any], bool]
    otherwise: str


@dataclass(frozen=True)
class Difference:
    """A setting that is not what it must be.

    Attributes:
        path: Where it is in dagster.yaml, with dots.
        problem: What it is, and what happens because of it.
        change: Where to write which line.
    """

    path: str
    problem: str
    change: str


def _is_true(value: Any) -> bool:
    return value is True


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _is_positive_or_absent(value: Any) -> bool:
    return value is None or _is_positive(value)


def _limits_submissions(limits: Any) -> bool:
    return isinstance(limits, list) and all(
        limit in limits for limit in _shipped("concurrency.runs.tag_concurrency_limits")
    )


def _rule(path: str, is_met: Callable[[Any], bool], otherwise: str) -> Rule:
    return Rule(tuple(path.split(".")), is_met, otherwise)


RULES = (
    _rule("telemetry.enabled", lambda value: value is False, "usage is reported to Dagster's makers"),
    _rule("sensors.use_threads", _is_true, "a slow sensor delays all others"),
    _rule(
        "run_retries.max_retries",
        lambda value: value in (None, 0),
        "Dagster's retry of a failed run gets in the way of the run that the sensor starts",
    ),
    _rule("run_monitoring.enabled", _is_true, "a run whose process is gone keeps its slot in the pool"),
    _rule(
        "run_monitoring.max_runtime_seconds",
        _is_positive,
        "a run whose process is gone keeps its slot in the pool",
    ),
    _rule(
        "run_monitoring.free_slots_after_run_end_seconds",
        _is_positive,
        "a run that was killed keeps its slot in the pool after its end",
    ),
    _rule(
        "concurrency.runs.max_concurrent_runs",
        _is_positive_or_absent,  # Dagster's default is a limit too
        "no run starts, or all of them start at once, with 200 MB each",
    ),
    _rule(
        "concurrency.runs.tag_concurrency_limits",
        _limits_submissions,
        "a second run of a submission starts, and waits for the first one",
    ),
    _rule(
        "concurrency.pools.default_limit",
        _is_positive,
        "no run can send batches, or all runs send at once and wait for each other",
    ),
    _rule(
        "retention.sensor.purge_after_days.skipped",
        _is_positive_or_absent,  # Dagster's default is 7 days
        "each sensor adds up to 2,880 ticks a day to Dagster's database for good",
    ),
)
# Shipped settings that may be anything: they are a matter of taste, or only numbers to choose.
FREE = (
    "nux.enabled",
    "sensors.num_workers",
    "run_retries.enabled",
    "retention.sensor.purge_after_days.success",
    "retention.sensor.purge_after_days.failure",
)


def read_settings(file: Path) -> dict[str, Any]:
    """Read a dagster.yaml, with limits of runs in `concurrency.runs`, wherever the file has them.

    Args:
        file: The file. One that does not exist has no settings.

    Raises:
        SettingsError: When it is not YAML, or not a map.
    """
    try:
        settings = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that no calendar has
        raise SettingsError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict | None):
        raise SettingsError(f"{file} is not a map of settings, as {SHIPPED} is")
    return _with_limits_of_runs(settings or {})


def _with_limits_of_runs(settings: dict[str, Any]) -> dict[str, Any]:
    """Dagster's Helm chart and files for its earlier versions have limits at other places, also in force."""
    concurrency = _map(settings, "concurrency")
    runs = {
        **_map(settings, "run_queue"),
        **_map(settings, "run_coordinator", "config"),
        **_map(concurrency, "runs"),
    }
    pools = {
        "default_limit": concurrency.get("default_op_concurrency_limit"),
        **_map(concurrency, "pools"),
    }
    return {**settings, "concurrency": {**concurrency, "runs": runs, "pools": pools}}


def _map(settings: dict[str, Any], *path: str) -> dict[str, Any]:
    value = _at(settings, path)
    return value if isinstance(value, dict) else {}


def write_shipped(folder: Path) -> bool:
    """Write the shipped dagster.yaml into a folder, unless it has one. A file that exists is never changed.

    Args:
        folder: A DAGSTER_HOME, or the folder in which `dg dev` is run.

    Returns:
        Whether it was written.

    Raises:
        SettingsError: When the folder cannot be written. Says what to run.
    """
    file = folder / FILE_NAME
    if file.exists():
        return False
    scratch = folder / f".{FILE_NAME}.{secrets.token_hex(6)}.tmp"
    try:
        with scratch.open("xb") as opened:
            opened.write(SHIPPED.read_bytes())
            opened.flush()
            os.fsync(opened.fileno())
        file.hardlink_to(scratch)  # a rename would replace a file that was written meanwhile
    except FileExistsError:
        return False
    except OSError as error:
        copy = f"cp {shell_quoted(str(SHIPPED))} {shell_quoted(str(file))}"
        raise SettingsError(f"{file} cannot be written ({error.strerror}): {copy}") from None
    finally:
        scratch.unlink(missing_ok=True)
    return True


def differences(settings: Mapping[str, Any], file: Path) -> list[Difference]:
    """List the settings that are not what they must be.

    Args:
        settings: The settings, as `read_settings` returns them.
        file: The file to name in the texts.
    """
    found = [
        _difference(rule, settings, file) for rule in RULES if not rule.is_met(_resolved(_at(settings, rule.path)))
    ]
    coordinator = _at(settings, ("run_coordinator", "class"))
    if coordinator not in (None, _QUEUE):
        problem = f"is {coordinator}, which has no queue, so no limit of runs and pools is in force"
        found.append(Difference("run_coordinator", problem, f"remove `run_coordinator` from {file}"))
    return found


def _difference(rule: Rule, settings: Mapping[str, Any], file: Path) -> Difference:
    value = _at(settings, rule.path)
    is_ = "is not set" if value is None else f"is {_flow(value)}"
    *parents, name = rule.path
    line = f"{name}: {_flow(_shipped('.'.join(rule.path)))}"
    change = f"write `{line}` in {file} under {'.'.join(parents)}"
    return Difference(".".join(rule.path), f"{is_}, so {rule.otherwise}", change)


def _at(settings: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path; `None` if there is none."""
    for name in path:
        if name == "skipped" and isinstance(settings, int):
            return settings  # one number of days for all ticks
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings


def _resolved(value: Any) -> Any:
    """Return a value, or the number in the environment variable that it names."""
    if isinstance(value, dict) and set(value) == {"env"}:
        text = os.environ.get(str(value["env"]), "")
        return int(text) if text.lstrip("-").isdecimal() else None
    return value


@cache
def _shipped_settings() -> dict[str, Any]:
    return read_settings(SHIPPED)


def _shipped(path: str) -> Any:
    return _at(_shipped_settings(), tuple(path.split(".")))


def _flow(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()
    )


@cache
def warn_of_differences() -> None:
    """Log once in a code server that the settings of its instance are not those that this project needs.

    A run loads the definitions too, and the command line needs no instance: neither repeats the warning. Without
    DAGSTER_HOME, `dagster dev` takes the dagster.yaml of the current folder.
    """
    if not is_code_server():
        return
    file = Path(os.environ.get("DAGSTER_HOME") or Path.cwd(), FILE_NAME)
    try:
        found = differences(read_settings(file), file)
    except (SettingsError, OSError) as error:
        _log.warning(f"the settings of the Dagster instance cannot be read: {error}")
        return
    if found:
        paths = ", ".join(each.path for each in found)
        where = f"{file} has" if file.is_file() else f"{file} does not exist, and Dagster's defaults have"
        _log.warning(
            f"the shipped dagster.yaml is not in force: {where} other values of {paths}. "
            "`batch-assets doctor` says what to change, and with --write it writes a file that does not exist"
        )
