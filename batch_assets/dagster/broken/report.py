"""Report broken files once: as warnings in the log, or as the error of a check of all definitions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from batch_assets.core.errors import FinalError
from batch_assets.dagster.broken_file import BrokenFile
from batch_assets.dagster.loading import is_validation

_log = logging.getLogger("batch_assets")
_collected: ContextVar[list[BrokenFile] | None] = ContextVar("broken files", default=None)


class BrokenFilesError(FinalError):
    """Files of the project are broken, and the definitions are to be checked. Names all of them."""


@contextmanager
def collecting() -> Iterator[list[BrokenFile]]:
    """Collect the broken files that are found meanwhile, instead of reporting each."""
    collected: list[BrokenFile] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def report(*files: BrokenFile) -> None:
    """Report files that are broken: log them, or pass them to who collects them.

    Raises:
        BrokenFilesError: When Dagster checks the definitions.
    """
    collected = _collected.get()
    if collected is not None:
        collected += files
    elif files and is_validation():
        raise BrokenFilesError("\n".join(map(str, files))) from None
    else:
        for file in files:
            _log_once(str(file), file.name)


@cache
def _log_once(text: str, name: str) -> None:
    """Log a broken file. A process may load the definitions many times."""
    _log.error(f"{text}\n{name} loads as a failing asset until the file is right; all others go on")
