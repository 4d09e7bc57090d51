"""Giving memory back: what a stage no longer uses should not count towards the peak of the next."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import pyarrow as pa


@cache
def _trim() -> Any:
    """glibc's malloc_trim; it keeps freed arrays of up to 32 MiB otherwise. None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def release_memory() -> None:
    """Returns freed memory of Arrow and of the C library to the operating system. Takes milliseconds."""
    pa.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)
