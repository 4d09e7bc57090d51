"""The SDK's request types, without the cost of importing the whole SDK.

`import anthropic` imports every client, resource and type. That takes 1.5 seconds, at every load of a code
location. The request types alone take a tenth of that. So they are imported from the SDK's files under a different
package name, without running the packages' `__init__`.
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
    """Return the installed SDK's TypedDict for the params of one request.

    Args:
        beta: Whether to return the type for beta features, which has more fields and blocks.
    """
    module = sdk_module("types.beta.message_create_params" if beta else "types.message_create_params")
    return module.MessageCreateParamsNonStreaming


def sdk_module(name: str) -> ModuleType:
    """Import a module of the SDK: from the SDK itself if that is already loaded, else without the rest of it.

    Args:
        name: The name of the module within the SDK.
    """
    if f"{_SDK}.types" not in sys.modules:
        _prepare()
        try:
            return importlib.import_module(f"{_ALIAS}.{name}")
        except ImportError:  # the module needs a package's __init__
            pass
    return importlib.import_module(f"{_SDK}.{name}")


def _prepare() -> None:
    """Register empty packages that find their modules in the SDK's folders."""
    if _ALIAS in sys.modules:
        return
    spec = importlib.util.find_spec(_SDK)
    assert spec is not None and spec.submodule_search_locations
    (folder,) = spec.submodule_search_locations
    for package in _PACKAGES:
        module = ModuleType(_ALIAS + package)
        module.__path__ = [str(Path(folder, *package.split(".")[1:]))]
        sys.modules[module.__name__] = module


def sdk_version() -> str:
    """Return the installed SDK's version."""
    return importlib.metadata.version(_SDK)
