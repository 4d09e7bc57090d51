"""The SDK's request types, without the price of importing the SDK.

`import anthropic` runs every client, resource and type that it has: 1.5 seconds, at every load of a code location.
The request types alone are a tenth of that. So they are imported from the SDK's own files, under a name of
ours, with the packages' `__init__` left out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_SDK = "anthropic"
_ALIAS = f"{__name__}_only"
_PACKAGES = ("", ".types", ".types.beta")


def request_type(*, beta: bool) -> Any:
    """The TypedDict of one request's params as the installed SDK knows them.

    Args:
        beta: the one of the beta features, which has fields and blocks more.
    """
    module = sdk_module("types.beta.message_create_params" if beta else "types.message_create_params")
    return module.MessageCreateParamsNonStreaming


def sdk_module(name: str) -> ModuleType:
    """A module of the SDK: that of the SDK itself if it is loaded anyway, else one that comes without the rest."""
    if f"{_SDK}.types" not in sys.modules:
        _prepare()
        try:
            return importlib.import_module(f"{_ALIAS}.{name}")
        except ImportError:  # it needs what some __init__ does
            pass
    return importlib.import_module(f"{_SDK}.{name}")


def _prepare() -> None:
    """Puts empty packages in place that look for their modules in the SDK's folders."""
    if _ALIAS in sys.modules:
        return
    found = importlib.util.find_spec(_SDK)
    assert found is not None and found.submodule_search_locations
    (folder,) = found.submodule_search_locations
    for package in _PACKAGES:
        made = ModuleType(_ALIAS + package)
        made.__path__ = [str(Path(folder, *package.split(".")[1:]))]
        sys.modules[made.__name__] = made


def sdk_version() -> str:
    """The installed SDK's version."""
    return importlib.metadata.version(_SDK)
