"""Texts of the core name no command, option or asset to materialize: those are remedies, which the faces word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import batch_assets

_CORE = Path(batch_assets.__file__).parent / "core"
# "materialize x", a command of ours and an option. A package's name is followed by no space.
_OF_A_FACE = re.compile(r"\bmaterialize\s|\bbatch-assets\s|(?<![\w-])--[a-z]", re.IGNORECASE)


def _docstrings(tree: ast.Module) -> set[int]:
    """Ids of the strings that are statements: docstrings, also of attributes."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def texts_of_a_face(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each string literal that only users of one face can follow."""
    tree = ast.parse(source)
    exempt = _docstrings(tree)
    for node in ast.walk(tree):
        text = getattr(node, "value", None) if isinstance(node, ast.Constant) and id(node) not in exempt else None
        if isinstance(text, str) and _OF_A_FACE.search(text):
            yield node.lineno, text


def test_texts_of_the_core_are_for_the_users_of_both_faces() -> None:
    modules = sorted(_CORE.rglob("*.py"))
    assert len(modules) > 100
    found = [
        f"{path.relative_to(_CORE)}:{line}: {text}"
        for path in modules
        for line, text in texts_of_a_face(path.read_text("utf-8"))
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
    assert [line for line, _ in texts_of_a_face(f'"""Not: materialize it."""\n\nerror = {text}\n')] == [3]


@pytest.mark.parametrize(
    "text", ["\"pip install 'batch-assets[duckdb]'\"", '"it was materialized"', '"x-should-retry"', '"a -- b"']
)
def test_other_texts_are_not_found(text: str) -> None:
    assert list(texts_of_a_face(f'"""Run batch-assets run x --limit 1."""\n\nerror = {text}\n')) == []
