"""Where the data, the ledger and the API are: everything read from the environment, in one place."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
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
class Settings:
    """Where things are.

    Attributes:
        root: local folder or fsspec URL that holds requests, responses and results.
        ledger_url: SQLAlchemy URL of the ledger.
        emulator_url: set when the emulator was asked for, by BATCH_ASSETS_EMULATOR.
        base_url: the API's base URL; None when neither a key nor a base URL is set.
        has_credentials: the environment names credentials for the API. They are never read here.
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

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, project: Path | None = None) -> Settings:
        """Reads BATCH_ASSETS_ROOT, _LEDGER, _EMULATOR, _RECONCILE_GRACE, _TRANSFERS, _UI_URL and the SDK's own
        variables.

        Errors:
            SettingsError: a value that cannot be used, naming the variable.
        """
        env = os.environ if env is None else env
        emulator = env.get("BATCH_ASSETS_EMULATOR") or None
        root = env.get("BATCH_ASSETS_ROOT") or str(
            (project or find_project()) / "data" / ("emulated" if emulator else "output")
        )
        remote = "://" in root and not root.startswith("file://")
        ledger = env.get("BATCH_ASSETS_LEDGER")
        if not ledger:
            if remote:
                raise SettingsError(
                    f"BATCH_ASSETS_ROOT is {root}: a remote root needs BATCH_ASSETS_LEDGER, "
                    "for example postgresql+psycopg2://user@host/name"
                )
            folder = Path(root.removeprefix("file://")).resolve()
            root, ledger = str(folder), f"sqlite:///{folder}/ledger.db"
        for name in ("BATCH_ASSETS_EMULATOR", "ANTHROPIC_BASE_URL"):
            _check_base_url(name, env.get(name) or "")
        return cls(
            root=root,
            ledger_url=ledger,
            emulator_url=emulator,
            base_url=emulator.rstrip("/") if emulator else _base_url(env),
            has_credentials=_has_credentials(env),
            reconcile_grace=_seconds(env, "BATCH_ASSETS_RECONCILE_GRACE", 900.0),
            transfers=_transfers(env),
            ui_url=_ui_url(env),
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


def _base_url(env: Mapping[str, str]) -> str | None:
    configured = env.get("ANTHROPIC_BASE_URL")
    if configured:
        return configured.rstrip("/")
    return REAL_BASE_URL if _has_credentials(env) else None


def _check_base_url(name: str, url: str) -> None:
    """A base URL stands in the ledger, in receipts and in errors: it must hold nothing secret."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingsError(
            f"{name} holds a user, a password or a query, which would be written down with the batches. Give the "
            "URL without them, and credentials by ANTHROPIC_API_KEY or ANTHROPIC_CUSTOM_HEADERS"
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
