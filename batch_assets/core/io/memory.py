"""Return unused memory to the operating system, so that it does not add to the peak of the next stage."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import pyarrow as pa

# From glibc's malloc.h.
_M_ARENA_MAX = -8


@cache
def _glibc_function(name: str) -> Any:
    """Look up a function of glibc; `None` with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)


def release_memory() -> None:
    """Return the freed memory of Arrow and of the C library to the operating system. Takes milliseconds."""
    pa.default_memory_pool().release_unused()
    # Otherwise glibc keeps freed arrays of up to 32 MiB.
    if (trim := _glibc_function("malloc_trim")) is not None:
        trim(0)


def share_memory() -> None:
    """Make threads that start from now on share the existing heaps.

    By default glibc gives each thread its own heap, and the unused memory in them adds up: to 50 MB at a million
    rows with four concurrent transfers. Python threads rarely have to wait for each other at a shared heap.
    """
    if (option := _glibc_function("mallopt")) is not None:
        option(_M_ARENA_MAX, 1)
