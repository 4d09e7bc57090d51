"""Texts about the permissions of files that exist already, which no run changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batch_assets.cli import text
from batch_assets.core.io.permissions import closed_to_group, too_open
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import Settings, find_project


def permission_problems(settings: Settings) -> Iterator[str]:
    """Yield a text about files of rows that other users can open, and one about those that the group cannot."""
    if not Storage.of(settings).is_local:
        return
    root, others = Path(settings.root.removeprefix("file://")), _others(settings)
    if paths := too_open(root, others, shared=settings.shared):
        yield (
            "other users of this machine can open files with rows. To change this: "
            f"chmod -R {'o=' if settings.shared else 'go='} {_quoted(paths)}"
        )
    if settings.shared and (paths := closed_to_group(root, others)):
        quoted = _quoted(paths)
        yield (
            "the group cannot read and write everything, as BATCH_ASSETS_SHARED asks for. To change "
            f"this: chmod -R g+rwX {quoted}; find {quoted} -type d -exec chmod g+s {{}} +"
        )


def _others(settings: Settings) -> list[Path]:
    """The ledger, with the files that SQLite keeps next to it, and the state of the project's emulator."""
    paths = [find_project() / "data" / "emulator"]
    url = parse_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite":
        paths += [Path(f"{url.database}{ending}") for ending in ("", "-wal", "-shm")]
    return paths


def _quoted(paths: list[Path]) -> str:
    return " ".join(shell_quoted(text.short_path(str(path))) for path in paths)
