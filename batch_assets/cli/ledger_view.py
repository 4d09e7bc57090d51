"""Texts about the ledger for commands that only read it, and so do not create a missing one."""

from __future__ import annotations

import os

from batch_assets.cli import text
from batch_assets.core.io.database import as_text
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import Settings, find_project


def locations(settings: Settings) -> str:
    """Return where root and ledger are, without the ledger's password."""
    return f"root {text.short_path(settings.root)}, ledger {ledger_name(settings)}"


def ledger_name(settings: Settings) -> str:
    """Return where the ledger is, without its password."""
    url = parse_url(settings.ledger_url)
    is_file = url.get_backend_name() == "sqlite"
    return text.short_path(url.database or "") if is_file else as_text(url)


def no_ledger(settings: Settings) -> str:
    """Return the text for a missing ledger, with the other roots of the project that have one."""
    notice = f"Nothing has run yet: there is no ledger ({locations(settings)})."
    for name in ("output", "emulated"):
        other_root = find_project() / "data" / name
        if "BATCH_ASSETS_ROOT" not in os.environ and (other_root / "ledger.db").is_file():
            path = text.short_path(str(other_root))
            notice += f"\nThere is one in {path}: set BATCH_ASSETS_ROOT={shell_quoted(path)}"
    return notice
