"""Modules of the SDK, without the cost of importing the whole SDK.

`import anthropic` imports every client, resource and type, some 2,900 modules. What this project uses of it needs
a third of them. So modules are imported from the SDK's files under a different package name, without running the
`__init__` of the SDK. The `__init__` of its packages of types only names what other modules define: such a package
imports a module when one of its names is asked for.

A module that cannot be imported in this way comes from the SDK itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_SDK = "anthropic"
_ALIAS = f"{__name__}_only"
_TYPES = "types"
_EXPORT = re.compile(r"from (\.+[\w.]*) import (?:\(([^()]*)\)|([^()\n]*))\n")
# The transport of an asynchronous client. The SDK does without it where aiohttp is not installed, and so do we:
# another package may have brought aiohttp, which takes long to import.
_LEFT_OUT = "_vendor.httpx_aiohttp"
_preparing = threading.Lock()
_NO_EXPORT = re.compile(r"(?:#[^\n]*|from __future__ import annotations)?\n")


def sdk_module(name: str) -> ModuleType:
    """Import a module of the SDK: from the SDK itself if that is already loaded, else without the rest of it.

    Args:
        name: The name of the module within the SDK.
    """
    if not is_loaded():
        try:
            return module_alone(name)
        except ImportError:  # the module needs the SDK's __init__
            pass
    return importlib.import_module(f"{_SDK}.{name}")


def is_loaded() -> bool:
    """Whether this process has imported the whole SDK."""
    return f"{_SDK}.{_TYPES}" in sys.modules


def is_logged() -> bool:
    """Whether someone wants to see the log of the SDK, which bears the names of the SDK's modules."""
    return bool(os.environ.get("ANTHROPIC_LOG")) or _SDK in logging.Logger.manager.loggerDict


def module_alone(name: str) -> ModuleType:
    """Import a module of the SDK without the rest of it.

    Args:
        name: The name of the module within the SDK.

    Raises:
        ImportError: When the module needs the SDK's `__init__`.
    """
    with _preparing:
        _prepare()
    return importlib.import_module(f"{_ALIAS}.{name}")


def _prepare() -> None:
    """Register packages that find their modules in the SDK's folders."""
    if _ALIAS in sys.modules:
        return
    spec = importlib.util.find_spec(_SDK)
    assert spec is not None and spec.submodule_search_locations
    (folder,) = spec.submodule_search_locations
    whole = ModuleType(_ALIAS)
    whole.__path__ = [folder]
    for package in _packages(Path(folder, _TYPES), f"{_ALIAS}.{_TYPES}"):
        parent, _, name = package.__name__.rpartition(".")
        setattr(sys.modules.get(parent, whole), name, package)
        sys.modules[package.__name__] = package
    sys.modules[f"{_ALIAS}.{_LEFT_OUT}"] = None  # type: ignore[assignment]  # how Python marks what does not exist
    sys.modules[_ALIAS] = whole


def _packages(folder: Path, name: str) -> Iterator[_TypesPackage]:
    """The package in a folder, and those in its folders."""
    init = folder / "__init__.py"
    if init.is_file():
        yield _TypesPackage(name, init)
        with os.scandir(folder) as entries:
            inner = sorted(entry.name for entry in entries if entry.is_dir())
        for child in inner:
            yield from _packages(folder / child, f"{name}.{child}")


class _TypesPackage(ModuleType):
    """A package that runs its `__init__` name by name, if it only names what other modules define."""

    def __init__(self, name: str, init: Path) -> None:
        super().__init__(name)
        self.__path__ = [str(init.parent)]
        self.__package__ = name
        self.__file__ = str(init)
        self._exports: dict[str, tuple[str, str]] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._exports is None:
            source = Path(str(self.__file__)).read_text("utf-8")
            self._exports = _exports(source)
            if not self._exports:
                exec(compile(source, str(self.__file__), "exec"), vars(self))
                return getattr(self, name)
        if name not in self._exports:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        module, defined = self._exports[name]
        value = getattr(importlib.import_module(module, self.__name__), defined)
        setattr(self, name, value)
        return value


def _exports(source: str) -> dict[str, tuple[str, str]]:
    """The names of a package, with the module that defines each and its name there.

    Returns:
        Nothing if the package's `__init__` does more than to import names, or a name is also that of a module.
    """
    if _NO_EXPORT.sub("", _EXPORT.sub("", f"{source}\n")):
        return {}
    exports = {}
    for module, several, single in _EXPORT.findall(source):
        for entry in filter(None, map(str.strip, (several or single).split(","))):
            defined, _, name = entry.partition(" as ")
            exports[name or defined] = (module, defined)
    modules = {module.lstrip(".").partition(".")[0] for module, _ in exports.values()}
    return {} if modules & exports.keys() else exports
