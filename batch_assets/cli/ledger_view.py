"""The ledger for commands that only look: they make none where there is none."""

from __future__ import annotations

import os

from batch_assets.cli import text
from batch_assets.core.io.database import in_words
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.settings import Settings, find_project


def where(settings: Settings) -> str:
    """Root and ledger in words, without the ledger's password."""
    url = parse_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite":
        return f"root {text.place(settings.root)}, ledger {text.place(url.database or '')}"
    return f"root {text.place(settings.root)}, ledger {in_words(url)}"


def nothing_here(settings: Settings) -> str:
    """What to say without a ledger, and where there is one instead."""
    message = f"Nothing was run yet: {where(settings)} is not there."
    for name in ("output", "emulated"):
        other = find_project() / "data" / name
        if "BATCH_ASSETS_ROOT" not in os.environ and (other / "ledger.db").is_file():
            message += (
                f"\nThere is one in {text.place(str(other))}: set BATCH_ASSETS_ROOT={text.place(str(other))}"
            )
    return message
