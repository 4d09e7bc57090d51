"""Texts of the core name no command, option or asset to materialize: those are remedies, which the faces word.

They also name no environment variable whose value a resource may give.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import batch_assets
from batch_assets.core.client_settings import CREDENTIALS, ClientOverrides
from batch_assets.core.settings import Overrides

_CORE = Path(batch_assets.__file__).parent / "core"
# "materialize x", a command of ours and an option. A package's name is followed by no space.
_OF_A_FACE = re.compile(r"\bmaterialize\s|\bbatch-assets\s|(?<![\w-])--[a-z]", re.IGNORECASE)
# Variables that a resource may replace.
_REPLACEABLE = re.compile(
    r"\bBATCH_ASSETS_(ROOT|LEDGER|EMULATOR|PROVIDER|WORKSPACE|PROFILE|TIMEOUT)\b"
    r"|\bANTHROPIC_(API_KEY|AUTH_TOKEN|BASE_URL|PROFILE|IDENTITY_TOKEN(_FILE)?)\b"
)
# They read the variables and the values that replace them, so they can name the one that was used.
_READ_THE_VARIABLES = {_CORE / name for name in ("settings.py", "client_settings.py", "emulated_root.py")}


def _docstrings(tree: ast.Module) -> set[int]:
    """Ids of the strings that are statements: docstrings, also of attributes."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def texts_with(pattern: re.Pattern[str], source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each string literal that contains a pattern."""
    tree = ast.parse(source)
    exempt = _docstrings(tree)
    for node in ast.walk(tree):
        text = getattr(node, "value", None) if isinstance(node, ast.Constant) and id(node) not in exempt else None
        if isinstance(text, str) and pattern.search(text):
            yield node.lineno, text


def test_texts_of_the_core_are_for_the_users_of_both_faces() -> None:
    modules = sorted(_CORE.rglob("*.py"))
    assert len(modules) > 100
    found = [
        f"{path.relative_to(_CORE)}:{line}: {text}"
        for path in modules
        for line, text in texts_with(_OF_A_FACE, path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        'f"the file is gone: materialize {pipeline}/requests again"',
        '"Materialize results"',
        '"to cancel it: " f"`batch-assets cancel {batch_id}`"',
        '"name the partition: pass --partition KEY"',
    ],
)
def test_a_text_of_one_face_is_found(text: str) -> None:
    assert [line for line, _ in texts_with(_OF_A_FACE, f'"""Not: materialize it."""\n\nerror = {text}\n')] == [3]


@pytest.mark.parametrize(
    "text", ["\"pip install 'batch-assets[duckdb]'\"", '"it was materialized"', '"x-should-retry"', '"a -- b"']
)
def test_other_texts_are_not_found(text: str) -> None:
    assert list(texts_with(_OF_A_FACE, f'"""Run batch-assets run x --limit 1."""\n\nerror = {text}\n')) == []


def test_texts_of_the_core_name_no_variable_that_a_resource_may_replace() -> None:
    # A migration knows texts of earlier releases.
    exempt = {*_READ_THE_VARIABLES, *(_CORE / "ledger" / "migrations").rglob("*.py")}
    modules = sorted({*_CORE.rglob("*.py")} - exempt)
    texts = [
        f"{path.relative_to(_CORE)}:{line}: {text}"
        for path in modules
        for line, text in texts_with(_REPLACEABLE, path.read_text("utf-8"))
    ]
    assert texts == []


def test_every_variable_that_a_resource_may_replace_is_looked_for() -> None:
    """The docstrings of `Overrides` name them."""
    docs = f"{Overrides.__doc__} {ClientOverrides.__doc__}"
    replaced = set(re.findall(r"(?:BATCH_ASSETS|ANTHROPIC)_[A-Z_]+", docs)) | {*CREDENTIALS}
    assert {name for name in replaced if not _REPLACEABLE.search(name)} == set()


@pytest.mark.parametrize("name", ["BATCH_ASSETS_ROOT", "ANTHROPIC_API_KEY"])
def test_the_name_of_such_a_variable_is_found(name: str) -> None:
    source = f'"""Not {name}."""\n\nerror = f"set {name} to {{value}}"\n'
    assert [line for line, _ in texts_with(_REPLACEABLE, source)] == [3]
