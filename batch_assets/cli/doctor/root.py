"""Whether the root can be written to, and who can open its files."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from batch_assets.cli.doctor.finding import Finding, RootFindings, ok, skipped, wrong
from batch_assets.cli.permissions import permission_problems
from batch_assets.core.errors import SettingsError, StorageError
from batch_assets.core.io.storage import Storage
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import Settings

# On a full disk an empty file can still be written.
_CONTENT = bytes(64 << 10)
_SECONDS = 15.0
"""For the write. The packages of object stores wait for many minutes, because they repeat a call."""


def root_findings(settings: Settings, seconds: float = _SECONDS) -> RootFindings:
    """Check the root and the permissions of its files.

    Args:
        settings: Where the root is.
        seconds: How long a remote root may take to answer.

    Returns:
        Whether the root answers. Each further call to one that does not would take many minutes.
    """
    try:
        storage = Storage.of(settings)
    except SettingsError as error:  # a package is missing, or the scheme is unknown
        yield wrong("root", str(error))
        yield skipped("permissions", "the root cannot be opened")
        return True
    if not storage.is_local:
        finding = _within(seconds, storage)
        yield finding or _silent(storage, seconds)
        yield skipped("permissions", "the bucket's policy decides who can open the files of rows")
        return finding is not None
    yield _writable(storage)
    problems = list(permission_problems(settings))
    yield from (wrong("permissions", problem) for problem in problems)
    if not problems:
        who = "their owner and its group" if settings.shared else "their owner"
        yield ok("permissions", f"only {who} can open files of rows")
    return True


def _within(seconds: float, storage: Storage) -> Finding | None:
    """Check a remote root; `None` if it has not answered by then. The call cannot be ended: it is left behind."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_writable(storage)), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _silent(storage: Storage, seconds: float) -> Finding:
    problem = f"{storage.uri()} has not answered within {seconds:.0f} s"
    return wrong("root", problem, "check the store's endpoint, the proxy and the network of this machine")


def _writable(storage: Storage) -> Finding:
    """Write a file and remove it. A local root that does not exist yet is not created."""
    uri = storage.uri()
    if storage.is_local and not Path(storage.path()).exists():
        return _can_be_created(Path(storage.path()))
    name = f"doctor-{secrets.token_hex(6)}.tmp"
    try:
        storage.write_bytes(_CONTENT, name)
        storage.remove(name)
    except StorageError as error:
        return wrong("root", str(error))
    except Exception as error:  # those of an fsspec package may be of any class
        problem = f"{uri} cannot be written ({type(error).__name__}: {error})"
        return wrong("root", problem, "check the bucket, its policy and the credentials in the environment")
    return ok("root", f"{uri} can be written")


def _can_be_created(root: Path) -> Finding:
    above = next(folder for folder in root.parents if folder.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok("root", f"{root} does not exist yet, and can be created")
    user, group, path = os.getuid(), os.getgid(), shell_quoted(str(root))
    problem = f"{root} does not exist, and {above} cannot be written"
    return wrong("root", problem, f"sudo install -d -o {user} -g {group} {path}")
