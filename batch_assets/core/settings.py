"""Where the data, the ledger and the API are: read from the environment, in one place, or given in its place."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batch_assets.core.errors import SettingsError

# Every way the SDK can find credentials by itself (anthropic 2.x, `_client.py`).
CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_PROFILE",
    "ANTHROPIC_IDENTITY_TOKEN",
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
)
REAL_BASE_URL = "https://api.anthropic.com"
MOST_TRANSFERS = 16
"""Most uploads or downloads at a time."""


def find_project(start: Path | None = None) -> Path:
    """The project folder: the nearest one at or above `start` with a workspace.yaml or a [tool.dg] table."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "workspace.yaml").is_file() or _is_dg_project(folder / "pyproject.toml"):
            return folder
    return start


def dg_table(pyproject: Path) -> dict[str, Any] | None:
    """The table [tool.dg] of a pyproject.toml; None where it has none, or is not there.

    Errors:
        tomllib.TOMLDecodeError: it is no TOML.
    """
    if not pyproject.is_file():
        return None
    found: dict[str, Any] | None = tomllib.loads(pyproject.read_text("utf-8")).get("tool", {}).get("dg")
    return found


def _is_dg_project(pyproject: Path) -> bool:
    try:
        return dg_table(pyproject) is not None
    except tomllib.TOMLDecodeError:
        return False


@dataclass(frozen=True)
class Overrides:
    """What is given in place of the environment's variables; None leaves those in force.

    Attributes:
        root: In place of BATCH_ASSETS_ROOT. The ledger of the environment then no longer counts.
        ledger: In place of BATCH_ASSETS_LEDGER.
        api_key: In place of all credentials of the environment.
        base_url: In place of ANTHROPIC_BASE_URL.
        emulator_url: In place of BATCH_ASSETS_EMULATOR.
    """

    root: str | None = None
    ledger: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    emulator_url: str | None = None


NO_OVERRIDES = Overrides()


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        root: local folder or fsspec URL that holds requests, responses and results.
        ledger_url: SQLAlchemy URL of the ledger.
        emulator_url: set when the emulator was asked for, by BATCH_ASSETS_EMULATOR.
        base_url: the API's base URL; None when neither a key nor a base URL is set.
        has_credentials: there are credentials for the API. Those of the environment are never read here.
        api_key: a key in place of the environment's credentials; None for those.
        reconcile_grace: seconds after the last byte of an upload whose outcome is unknown before it
            may be sent again.
        transfers: uploads or downloads at a time.
        ui_url: where people open Dagster's UI, for links in messages; None for no links.
    """

    root: str
    ledger_url: str
    emulator_url: str | None
    base_url: str | None
    has_credentials: bool
    reconcile_grace: float
    transfers: int = 4
    ui_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        project: Path | None = None,
        overrides: Overrides = NO_OVERRIDES,
    ) -> Settings:
        """Reads BATCH_ASSETS_ROOT, _LEDGER, _EMULATOR, _RECONCILE_GRACE, _TRANSFERS, _UI_URL and the SDK's own
        variables.

        An emulator comes before every other endpoint: with BATCH_ASSETS_EMULATOR set, nothing reaches the real
        API, whatever is given.

        Args:
            env: The variables; by default those of the process.
            project: The folder that the default root is in; by default found from the working directory.
            overrides: What is given in place of variables.

        Raises:
            SettingsError: A value that cannot be used, naming the variable or the override.
        """
        env = os.environ if env is None else env
        for name, url in (
            ("BATCH_ASSETS_EMULATOR", env.get("BATCH_ASSETS_EMULATOR")),
            ("ANTHROPIC_BASE_URL", env.get("ANTHROPIC_BASE_URL")),
            ("emulator_url", overrides.emulator_url),
            ("base_url", overrides.base_url),
        ):
            _check_base_url(name, url or "")
        emulator = overrides.emulator_url or env.get("BATCH_ASSETS_EMULATOR") or None
        root, ledger = _root_and_ledger(env, project, overrides, is_emulated=emulator is not None)
        has_credentials = overrides.api_key is not None or _has_credentials(env)
        base_url = emulator or overrides.base_url or env.get("ANTHROPIC_BASE_URL") or None
        if base_url is None and has_credentials:
            base_url = REAL_BASE_URL
        return cls(
            root=root,
            ledger_url=ledger,
            emulator_url=emulator,
            base_url=base_url.rstrip("/") if base_url is not None else None,
            has_credentials=has_credentials,
            reconcile_grace=_seconds(env, "BATCH_ASSETS_RECONCILE_GRACE", 900.0),
            transfers=_transfers(env),
            ui_url=_ui_url(env),
            api_key=overrides.api_key,
        )

    @property
    def first_poll(self) -> float:
        """Seconds between looks at a fresh batch. The emulator ends batches in seconds, the API in minutes."""
        return 0.5 if self.emulator_url else 10.0

    def require_endpoint(self) -> str:
        """The base URL, or a SettingsError that says what to set. Nothing falls back to the emulator."""
        if self.base_url is None:
            raise SettingsError(
                "No API to talk to: set ANTHROPIC_API_KEY for the real API (or ANTHROPIC_BASE_URL for a "
                "gateway), or start `batch-assets emulator` and set BATCH_ASSETS_EMULATOR to its URL."
            )
        return self.base_url


def _root_and_ledger(
    env: Mapping[str, str], project: Path | None, overrides: Overrides, *, is_emulated: bool
) -> tuple[str, str]:
    """The root, and the URL of its ledger.

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
    if ledger:
        return root, ledger
    if "://" in root and not root.startswith("file://"):
        raise SettingsError(
            f"{name} is {root}: a remote root needs {ledger_name}, for example postgresql+psycopg2://user@host/name"
        )
    folder = Path(root.removeprefix("file://")).resolve()
    return str(folder), f"sqlite:///{folder}/ledger.db"


def _check_base_url(name: str, url: str) -> None:
    """A base URL stands in the ledger, in receipts and in errors: it must hold nothing secret."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError(
            f"{name} holds a user, a password or a query, which would be written down with the batches. Give the "
            "URL without them, and credentials by a key or ANTHROPIC_CUSTOM_HEADERS"
        )


def _ui_url(env: Mapping[str, str]) -> str | None:
    """It stands in messages, so that it must hold nothing secret either."""
    url = (env.get("BATCH_ASSETS_UI_URL") or "").rstrip("/")
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment):
        raise SettingsError(
            "BATCH_ASSETS_UI_URL takes the address of Dagster's UI, such as https://dagster.example.com, without "
            "a user, a password or a query"
        )
    return url or None


def _has_credentials(env: Mapping[str, str]) -> bool:
    return any(env.get(name) for name in CREDENTIALS)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < 0:
        raise SettingsError(f"{name} is {text!r}: give a number of seconds, 0 or more")
    return value


def _transfers(env: Mapping[str, str]) -> int:
    text = env.get("BATCH_ASSETS_TRANSFERS") or str(Settings.transfers)
    if not text.isdecimal() or not 1 <= int(text) <= MOST_TRANSFERS:
        raise SettingsError(
            f"BATCH_ASSETS_TRANSFERS is {text!r}: give the number of uploads or downloads at a time, "
            f"1 to {MOST_TRANSFERS}"
        )
    return int(text)
