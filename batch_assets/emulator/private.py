"""Files of the emulator's state, which hold requests and answers: only their owner can open them.

With BATCH_ASSETS_SHARED=group, the group can as well.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def _is_shared() -> bool:
    return os.environ.get("BATCH_ASSETS_SHARED") == "group"


def make_private(folder: Path) -> None:
    """Create a folder, unless it exists. The umask decides about missing folders above it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        return
    if _is_shared():
        folder.chmod(0o2770)


def create_private(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file for writing. An existing file is emptied and keeps its permissions."""
    return open(path, "wb", buffering=buffering, opener=_open)


def touch_private(path: Path) -> None:
    """Create an empty file, unless it exists."""
    os.close(_open(str(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))


def _open(path: str, flags: int) -> int:
    is_new = not Path(path).exists()
    descriptor = os.open(path, flags, 0o600)
    if is_new and _is_shared():
        os.fchmod(descriptor, 0o660)
    return descriptor
