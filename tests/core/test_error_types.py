"""Error types of rows: no type is written as a string, and each is documented."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import batch_assets
from batch_assets.core.errors import ErrorType

_PACKAGE = Path(batch_assets.__file__).parent
# `render_request` is also the name of the hook, and a field of the manifest.
_TYPES = set(ErrorType) - {ErrorType.RENDER_REQUEST}


def _literals(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in _TYPES:
            yield node.lineno


def test_no_error_type_is_written_as_a_string() -> None:
    paths = [
        path
        for path in (_PACKAGE / "core").rglob("*.py")
        if path.name != "errors.py" or path.parent.name != "core"
    ]
    assert len(paths) > 150
    written = [
        f"{path.relative_to(_PACKAGE)}:{line}" for path in paths for line in _literals(path.read_text("utf-8"))
    ]
    assert written == []


@pytest.mark.parametrize("planted", ['raise RowRejectedError("template_error", why)', 'x == "missing_result"'])
def test_an_error_type_that_is_written_as_a_string_is_found(planted: str) -> None:
    assert list(_literals(planted)) == [1]


def test_every_error_type_is_documented() -> None:
    tree = ast.parse((_PACKAGE / "core/errors.py").read_text("utf-8"))
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ErrorType")
    for member, following in zip(kind.body[1::2], kind.body[2::2], strict=True):
        assert isinstance(member, ast.Assign)
        assert isinstance(following, ast.Expr), ast.unparse(member)
