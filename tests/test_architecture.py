"""docs/architecture.md and the code: every path it names exists, and its wings are those of the contract."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.documentation import PROJECT, page

PAGE = page("docs/architecture.md")


def _paths(text: str) -> list[str]:
    return [span for span in text.split("`")[1::2] if "/" in span and " " not in span and "<" not in span]


def test_every_path_exists() -> None:
    paths = [path for path in PAGE.spans() if path.startswith(("core/", "cli/", "dagster/", "emulator/", "defs/"))]
    assert len(paths) > 60
    assert [path for path in paths if not (PROJECT / "batch_assets" / path).exists()] == []


def test_the_wings_are_those_of_the_contract_in_its_order() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "wings")
    described = [
        [path.removeprefix("core/").removesuffix("/").removesuffix(".py") for path in _paths(row[0])]
        for row in PAGE.table("The wings")
        if "core/" in row[0]
    ]
    assert described == [layer.split(" | ") for layer in layers]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("a kind of dataset", r"\bDatasetKind\.[A-Z]|\bkind\.is_files|\bdataset\.pattern"),
        ("a reason to wait, or a next step", r"\b(Waiting|SendReason|Joining)\.[A-Z]"),
    ],
)
def test_a_row_of_where_to_change_what_names_every_module_that_tells_the_values_apart(row: str, code: str) -> None:
    (named,) = [_paths(cells[1]) for cells in PAGE.table("Where to change what") if cells[0] == row]
    package = PROJECT / "batch_assets"
    modules = [path for path in package.rglob("*.py") if re.search(code, path.read_text("utf-8"))]
    assert len(modules) > 3
    assert {str(path.relative_to(package)) for path in modules} <= set(named)
