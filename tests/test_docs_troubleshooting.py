"""Each message in docs/troubleshooting.md is one that the package prints, and each of its errors has an entry."""

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


KINDS = "Kinds of errors"
ROWS = [row for heading in _headings() if heading != KINDS for row in PAGE.table(heading)]
MESSAGES = [message for row in ROWS for message in re.findall(r"`([^`]+)`", row[0])]


@cache
def _trees() -> list[ast.Module]:
    """The modules of the package, without the emulator, which shares no code with it."""
    package = PROJECT / "batch_assets"
    paths = [path for path in sorted(package.rglob("*.py")) if not path.is_relative_to(package / "emulator")]
    return [ast.parse(path.read_text("utf-8")) for path in paths]


@cache
def printed_texts() -> list[str]:
    """All texts in the package's code, without docstrings."""
    texts = []
    for tree in _trees():
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


def _error_classes() -> dict[str, tuple[str, set[str]]]:
    """The errors for users that the package defines: what the docstring says of each, and its ancestors."""
    nodes = [node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: [base.id for base in node.bases if isinstance(base, ast.Name)] for node in nodes}

    def ancestors(name: str) -> set[str]:
        return {name}.union(*(ancestors(base) for base in bases.get(name, ())))

    found = {node.name: (ast.get_docstring(node) or "", ancestors(node.name)) for node in nodes}
    return {
        name: (" ".join(docstring.split("\n\n")[0].split()), above)
        for name, (docstring, above) in found.items()
        if "BatchAssetsError" in above and name not in ("BatchAssetsError", "FinalError")
    }


def test_every_error_has_its_entry() -> None:
    classes = _error_classes()
    assert len(classes) > 35
    expected = [
        (f"`{name}`", f"{docstring} *Final.*" if "FinalError" in above else docstring)
        for name, (docstring, above) in sorted(classes.items())
    ]
    rows = PAGE.table(KINDS)
    assert [(row[0], row[1]) for row in rows] == expected
    assert all(len(row) == 3 and row[2] for row in rows)
