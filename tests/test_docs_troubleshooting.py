"""Each message in docs/troubleshooting.md is one that the package prints, word for word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.documentation import PROJECT, page

PAGE = page("docs/troubleshooting.md")
GAP = "…"  # on the page and here: what a message fills in


def _headings() -> list[str]:
    return re.findall(r"^## (.+)$", PAGE.prose, re.M)


ROWS = [row for heading in _headings() for row in PAGE.table(heading)]
MESSAGES = [message for row in ROWS for message in re.findall(r"`([^`]+)`", row[0])]


@cache
def printed_texts() -> list[str]:
    """All texts in the package's code, without docstrings."""
    texts = []
    for path in sorted((PROJECT / "batch_assets").rglob("*.py")):
        if path.is_relative_to(PROJECT / "batch_assets" / "emulator"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts += [_shortened(text) for node, text in _texts(tree) if id(node) not in notes]
    return texts


def _texts(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node, "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node, node.value


def _shortened(text: str) -> str:
    return re.sub(f"{GAP}+", GAP, text)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_in_the_code(message: str) -> None:
    assert len(message.strip(f"{GAP} ")) > 10
    assert any(message in text for text in printed_texts())


def test_every_row_has_a_message_a_cause_and_a_remedy() -> None:
    assert len(ROWS) > 35
    assert all(len(row) == 3 and all(row) and row[0].startswith("`") for row in ROWS)
    assert len(set(MESSAGES)) == len(MESSAGES) >= len(ROWS)
