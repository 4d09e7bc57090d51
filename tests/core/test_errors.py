"""The tree of errors in the docstring is the tree of the classes, and each name is used once."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import batch_assets
from batch_assets.core import errors
from batch_assets.core.api import errors as api_errors

# Raised in the code of Dagster's own components.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


def load_all_modules() -> None:
    for module in pkgutil.walk_packages(batch_assets.__path__, "batch_assets."):
        # The page runs within the dashboard only.
        if not module.name.endswith(("__main__", "dashboard.page")) and ".migrations." not in module.name:
            importlib.import_module(module.name)


def documented_tree(docstring: str | None) -> dict[str, str]:
    """The parent of each class, by name, from the indentation of the tree in a docstring."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (docstring or "").splitlines():
        if (match := re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b", line)) is not None:
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[depth - 1] if depth else ""
    return parents


def subclasses(base: type[BaseException]) -> set[type[BaseException]]:
    """All subclasses of a class, direct or not, that this project defines."""
    classes: set[type[BaseException]] = set()
    for cls in base.__subclasses__():
        classes |= {cls, *subclasses(cls)} if is_ours(cls) else subclasses(cls)
    return classes


def is_ours(cls: type) -> bool:
    """Whether this project defines a class. Modules of the SDK have a name of ours if they are imported alone."""
    of_sdk = cls.__module__.startswith("batch_assets.core.template.sdk_modules_only")
    return cls.__module__.startswith("batch_assets.") and not of_sdk


@pytest.mark.parametrize(
    ("module", "base"), [(errors, errors.BatchAssetsError), (api_errors, api_errors.ApiError)]
)
def test_the_docstring_has_the_tree_of_the_classes(module: object, base: type[Exception]) -> None:
    load_all_modules()
    tree = {base.__name__: ""} | {cls.__name__: cls.__bases__[0].__name__ for cls in subclasses(base)}
    assert documented_tree(module.__doc__) == tree


def test_no_two_errors_have_the_same_name() -> None:
    load_all_modules()
    names = [cls.__name__ for cls in subclasses(BaseException)]
    assert len(names) > 30
    assert sorted(names) == sorted(set(names))
