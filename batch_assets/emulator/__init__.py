"""A local emulator of the Anthropic Message Batches API, as a real HTTP server.

Public names, imported on first use: `run_server` (serve in this process), `Emulator` (a server process for tests),
`emulated_answer` and `text_digest` (the answer of the emulator to a request).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch_assets.emulator.answers import emulated_answer, text_digest
    from batch_assets.emulator.process import Emulator
    from batch_assets.emulator.serving import run_server

__all__ = ["Emulator", "emulated_answer", "run_server", "text_digest"]

_HOMES = {
    "Emulator": "process",
    "emulated_answer": "answers",
    "run_server": "serving",
    "text_digest": "answers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
