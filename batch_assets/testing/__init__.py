"""Tests of a project's own pipelines: fixtures for pytest, with an emulator whose answers the test makes.

pytest loads `batch_assets.testing.plugin` by itself in every project that has the package installed. The names
here are imported on first use, so a test run that needs none of them imports neither Dagster nor the emulator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch_assets.testing.emulator import BatchEmulator
    from batch_assets.testing.prompts import PromptSnapshot
    from batch_assets.testing.runs import RunPipeline
    from batch_assets.testing.script import Answer, AskedRequest, Failure, ToolCall

__all__ = ["Answer", "AskedRequest", "BatchEmulator", "Failure", "PromptSnapshot", "RunPipeline", "ToolCall"]

_HOMES = {
    "Answer": "script",
    "AskedRequest": "script",
    "BatchEmulator": "emulator",
    "Failure": "script",
    "PromptSnapshot": "prompts",
    "RunPipeline": "runs",
    "ToolCall": "script",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
