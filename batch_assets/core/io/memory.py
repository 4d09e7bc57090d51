"""Giving memory back: what a stage no longer uses should not count towards the peak of the next."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import pyarrow as pa

# Of glibc's malloc.h.
_M_ARENA_MAX = -8


@cache
def _of_glibc(name: str) -> Any:
    """A function of glibc's; None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)


def release_memory() -> None:
    """Returns freed memory of Arrow and of the C library to the operating system. Takes milliseconds."""
    pa.default_memory_pool().release_unused()
    # glibc keeps freed arrays of up to 32 MiB otherwise.
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def share_memory() -> None:
    """Threads that begin from now on allocate where those before them did.

    glibc gives each a heap of its own, and what is left in many of them adds up: with four transfers at a time, to
    50 MB at a million rows. Threads of Python hardly ever wait for each other at one heap.
    """
    if (option := _of_glibc("mallopt")) is not None:
        option(_M_ARENA_MAX, 1)
