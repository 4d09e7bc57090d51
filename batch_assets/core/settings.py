"""Settings: the locations of the data, the ledger and the API, from environment variables or given in code."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batch_assets.core.client_settings import ClientOverrides, ClientSettings, endpoint_in
from batch_assets.core.env_values import budget, lease_seconds, optional_number, seconds, whole_number
from batch_assets.core.errors import SettingsError
from batch_assets.core.prices.budget import Budget
from batch_assets.core.prices.prices import Prices, prices_in
from batch_assets.core.prices.table import VARIABLE as PRICES_VARIABLE
from batch_assets.core.remedies import StartEmulator
from batch_assets.core.urls import ELSEWHERE, secret_in

# The URL of an SQLite file with a relative path.
_SQLITE_FILE = re.compile(r"(?P<start>sqlite(\+\w+)?:///)(?P<path>[^/?:][^?:]*)(?P<end>(\?.*)?)")
MOST_TRANSFERS = 16
"""The largest number of concurrent uploads or downloads."""
MOST_PROCESSES = 64
"""The largest number of processes that render rows or parse results."""
MOST_IN_FLIGHT = 100_000_000
"""The largest limit for queued requests."""
MOST_PARTITIONS_PER_RUN = 1000
"""The largest number of partitions that one run may have."""


def find_project(start: Path | None = None) -> Path:
    """Find the project folder.

    Args:
        start: Where to begin; `None` for the current folder.

    Returns:
        The nearest folder at or above `start` with a workspace.yaml or a pyproject.toml that has a [tool.dg]
        table; `start` itself if there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "workspace.yaml").is_file() or _is_dg_project(folder / "pyproject.toml"):
            return folder
    return start


def dg_table(pyproject: Path) -> dict[str, Any] | None:
    """Read the table [tool.dg] of a pyproject.toml.

    Returns:
        The table, or `None` if the file has no such table or does not exist.

    Raises:
        tomllib.TOMLDecodeError: When the file is not valid TOML.
    """
    if not pyproject.is_file():
        return None
    table: dict[str, Any] | None = tomllib.loads(pyproject.read_text("utf-8")).get("tool", {}).get("dg")
    return table


def _is_dg_project(pyproject: Path) -> bool:
    try:
        return dg_table(pyproject) is not None
    except tomllib.TOMLDecodeError:
        return False


@dataclass(frozen=True)
class Overrides(ClientOverrides):
    """Values that replace environment variables. None leaves the variable in force. See also `ClientOverrides`.

    Attributes:
        root: Replaces BATCH_ASSETS_ROOT. BATCH_ASSETS_LEDGER is then ignored.
        ledger: Replaces BATCH_ASSETS_LEDGER.
    """

    root: str | None = None
    ledger: str | None = field(default=None, repr=False)


NO_OVERRIDES = Overrides()


@dataclass(frozen=True)
class Settings:
    """The settings of one process.

    Attributes:
        root: Local folder, as an absolute path, or fsspec URL that holds requests, responses and results.
        ledger_url: SQLAlchemy URL of the ledger.
        emulator_url: The emulator's URL, from BATCH_ASSETS_EMULATOR; `None` if the emulator is not used.
        base_url: The base URL of the API or the emulator; `None` if no emulator, credentials or base URL is set.
        has_credentials: Whether there are credentials for the API. Those of the environment are never stored here.
        api_key: A key in place of the environment's credentials; `None` to use those.
        reconcile_grace: Seconds to wait after the last byte of an upload whose outcome is unknown before the
            upload may be sent again.
        transfers: The number of concurrent uploads or downloads.
        processes: The number of processes that render rows and parse results; with 1 the run does both itself.
        partitions_per_run: The largest number of partitions in one run of a backfill or of the sensor.
        prices_file: The user's own price file, from BATCH_ASSETS_PRICES; `None` for the shipped prices alone.
        budget: The budget of the root, from BATCH_ASSETS_BUDGET; `None` for none.
        max_in_flight: The largest number of queued requests, from BATCH_ASSETS_MAX_IN_FLIGHT; `None` for what
            the account takes.
        ui_url: URL of Dagster's UI, for links in notifications; `None` for no links.
        shared: Whether the group may read and write the files of rows, so that several users can run pipelines.
        storage_options: Arguments of the root's file system, such as credentials; none for a local root.
        api_key: A key that was given in code, or that of a cloud provider; `None` for what the SDK finds itself.
        client: How the API is called.
    """

    root: str
    ledger_url: str = field(repr=False)
    emulator_url: str | None
    base_url: str | None
    has_credentials: bool
    reconcile_grace: float
    transfers: int = 4
    processes: int = 1
    partitions_per_run: int = 25
    prices_file: Path | None = None
    budget: Budget | None = None
    max_in_flight: int | None = None
    ui_url: str | None = None
    shared: bool = False
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    api_key: str | None = field(default=None, repr=False)
    client: ClientSettings = field(default_factory=ClientSettings)

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        project: Path | None = None,
        overrides: Overrides = NO_OVERRIDES,
        *,
        needs_ledger: bool = True,
    ) -> Settings:
        """Read the settings from environment variables: ours, BATCH_ASSETS_*, and those of the SDK.

        An emulator comes before every other endpoint: with BATCH_ASSETS_EMULATOR set, nothing is sent to the real
        API, whatever else is set.

        Args:
            env: The variables; by default those of the process.
            project: The folder that the default root is in; by default found from the working directory.
            overrides: Values that replace variables.
            needs_ledger: Whether a remote root without a ledger is refused. Who only reads results needs none.

        Raises:
            SettingsError: When a value cannot be used. The error names the variable or the override.
        """
        env = os.environ if env is None else env
        api = endpoint_in(env, overrides)
        root, ledger = _root_and_ledger(
            env, project, overrides, needs_ledger, is_emulated=api.emulator_url is not None
        )
        prices_file = prices_file_in(env, project)
        prices_in(prices_file)  # raises if it cannot be used
        lease_seconds(env)  # so does this; each lease reads it
        return cls(
            root=root,
            ledger_url=ledger,
            emulator_url=api.emulator_url,
            base_url=api.base_url.rstrip("/") if api.base_url is not None else None,
            has_credentials=api.has_credentials,
            reconcile_grace=seconds(env, "BATCH_ASSETS_RECONCILE_GRACE", 900.0),
            transfers=_transfers(env),
            processes=_processes(env),
            partitions_per_run=partitions_per_run_in(env),
            prices_file=prices_file,
            budget=budget(env),
            max_in_flight=optional_number(
                env, "BATCH_ASSETS_MAX_IN_FLIGHT", MOST_IN_FLIGHT, "largest number of queued requests"
            ),
            ui_url=_ui_url(env),
            shared=_shared(env),
            storage_options=_storage_options(env) if overrides.root is None else {},
            api_key=api.api_key,
            client=api.client,
        )

    @property
    def prices(self) -> Prices:
        """The prices in force.

        Raises:
            SettingsError: When the user's price file cannot be read, or is no price file.
        """
        return prices_in(self.prices_file)

    @property
    def first_poll(self) -> float:
        """Seconds between polls of a new batch. The emulator ends batches in seconds, the API in minutes."""
        return 0.5 if self.emulator_url else 10.0

    def require_endpoint(self) -> str:
        """Return the base URL. There is no fallback to the emulator.

        Raises:
            SettingsError: When no base URL is known. Says which variables to set.
        """
        if self.base_url is None and self.client.lacks is not None:
            raise SettingsError(
                f"No API to talk to: for the provider {self.client.provider}, set {self.client.lacks}"
            )
        if self.base_url is None:
            raise SettingsError(
                "No API to talk to: set ANTHROPIC_API_KEY for the real API (or ANTHROPIC_BASE_URL for a "
                "gateway), or set BATCH_ASSETS_EMULATOR to the URL of an emulator.",
                remedy=StartEmulator(),
            )
        return self.base_url


def _root_and_ledger(
    env: Mapping[str, str], project: Path | None, overrides: Overrides, needs_ledger: bool, *, is_emulated: bool
) -> tuple[str, str]:
    """The root, and the URL of its ledger. Relative paths are relative to the project folder.

    A root brings its ledger along: one of the environment belongs to the environment's root.
    """
    if overrides.root is not None:
        name, root = "root", overrides.root
        ledger_name, ledger = "ledger", overrides.ledger
    else:
        if overrides.ledger is not None:
            raise SettingsError("`ledger` is given without `root`: a ledger belongs to one root, so give both")
        name, ledger_name, ledger = "BATCH_ASSETS_ROOT", "BATCH_ASSETS_LEDGER", env.get("BATCH_ASSETS_LEDGER")
        root = env.get("BATCH_ASSETS_ROOT") or str(
            (project or find_project()) / "data" / ("emulated" if is_emulated else "output")
        )
    if (secret := secret_in(root)) is not None:
        raise SettingsError(
            f"{name} contains {secret}, which would be written to metadata and errors. {ELSEWHERE}"
        )
    is_remote = "://" in root and not root.startswith("file://")
    if not is_remote:
        root = str(_in_project(name, root.removeprefix("file://"), project, _is_root))
    if ledger:
        return root, _ledger_in_project(ledger_name, ledger, project)
    if is_remote and needs_ledger:
        raise SettingsError(
            f"{name} is {root}: a remote root needs {ledger_name}, for example postgresql+psycopg2://user@host/name"
        )
    return root, f"sqlite:///{root}/ledger.db"


def _in_project(name: str, path: str, project: Path | None, is_used: Callable[[Path], bool]) -> Path:
    """Resolve a path against the project folder.

    Earlier versions resolved it against the current folder. A path that is used there is refused: otherwise
    everything in it would be sent and paid for again.

    Args:
        name: The setting that the path is from.
        path: The path.
        project: The project folder; by default found from the working directory.
        is_used: Whether something of this project is at a path.

    Raises:
        SettingsError: When it is used in the current folder.
    """
    expanded = Path(path).expanduser()
    if expanded.is_absolute():
        return expanded.resolve()
    resolved, before = ((project or find_project()) / expanded).resolve(), expanded.resolve()
    if before != resolved and is_used(before):
        raise SettingsError(
            f"{name} is {path}, which is relative to the project folder and means {resolved}. But {before} "
            f"in the current folder exists. Set {name} to the absolute path of the one that you mean"
        )
    return resolved


def _is_root(folder: Path) -> bool:
    """Whether a folder is a root: it has a ledger, the id of a root, or submissions."""
    is_marked = any((folder / name).is_file() for name in ("root.json", "ledger.db"))
    return is_marked or next(folder.glob("*/requests/*"), None) is not None


def _ledger_in_project(name: str, url: str, project: Path | None) -> str:
    """Resolve the relative path of an SQLite ledger against the project folder."""
    match = _SQLITE_FILE.fullmatch(url)
    if match is None:
        return url
    return f"{match['start']}{_in_project(name, match['path'], project, Path.is_file)}{match['end']}"


def prices_file_in(env: Mapping[str, str], project: Path | None = None) -> Path | None:
    """Return the user's own price file, if there is one. A relative path starts at the project folder.

    Args:
        env: Environment variables.
        project: The project folder; by default found from the working directory.
    """
    path = env.get(PRICES_VARIABLE)
    return _in_project(PRICES_VARIABLE, path, project, lambda _: False) if path else None


def _ui_url(env: Mapping[str, str]) -> str | None:
    """Read the URL of Dagster's UI, which may not have credentials because notifications show it."""
    url = (env.get("BATCH_ASSETS_UI_URL") or "").rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("unreadable:")
    if url and (parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment):
        raise SettingsError(
            "BATCH_ASSETS_UI_URL is not valid: set it to the URL of Dagster's UI, such as "
            "https://dagster.example.com, without a user, a password, a query or a fragment"
        )
    return url or None


def _shared(env: Mapping[str, str]) -> bool:
    text = env.get("BATCH_ASSETS_SHARED") or ""
    if text not in ("", "group"):
        raise SettingsError(
            f"BATCH_ASSETS_SHARED is {text!r}: set it to group, so that the group can read and write the files of "
            "rows, or leave it out, so that only their owner can"
        )
    return text == "group"


def _storage_options(env: Mapping[str, str]) -> Mapping[str, Any]:
    """Read the arguments of the root's file system. Errors do not repeat them, because they may be secret."""
    text = env.get("BATCH_ASSETS_STORAGE_OPTIONS") or "{}"
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise SettingsError(
            "BATCH_ASSETS_STORAGE_OPTIONS is not a JSON object: set it to the arguments of the root's file "
            'system, such as {"profile": "production"}'
        )
    return options


def _transfers(env: Mapping[str, str]) -> int:
    what = "number of concurrent uploads or downloads"
    return whole_number(env, "BATCH_ASSETS_TRANSFERS", Settings.transfers, MOST_TRANSFERS, what)


def _processes(env: Mapping[str, str]) -> int:
    what = "number of processes that render rows and parse results"
    return whole_number(env, "BATCH_ASSETS_PROCESSES", Settings.processes, MOST_PROCESSES, what)


def partitions_per_run_in(env: Mapping[str, str]) -> int:
    """Return the largest number of partitions in one run of a backfill or of the sensor.

    Args:
        env: Environment variables.

    Raises:
        SettingsError: When the variable is not a number in its range.
    """
    name, what = "BATCH_ASSETS_PARTITIONS_PER_RUN", "largest number of partitions in one run"
    return whole_number(env, name, Settings.partitions_per_run, MOST_PARTITIONS_PER_RUN, what)
