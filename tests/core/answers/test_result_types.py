"""Result types: one order, one share of failed rows, and no type that is written as a string."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import batch_assets
from batch_assets.core.answers.result_types import FAILED, ResultType, failed_rows, failed_share, final_rows
from batch_assets.dagster.metadata.columns import DESCRIPTIONS

_PACKAGE = Path(batch_assets.__file__).parent
_WORDS = set(ResultType)
# Words that are spelled like a result type and are something else, or code that is no part of the library.
_OTHERS = [
    ("cli/status_json.py", '"rejected": '),
    ("cli/status_summary.py", 'return "canceled" if submission'),
    ("core/answers/result_types.py", "class ResultType"),
    ("core/api/objects.py", "COUNTS = "),
    ("core/batches/cancel.py", "reported.request_counts["),
    ("core/erase/tables.py", '"rejected": rejected'),
    ("core/ledger/erasure.py", '"rejected": rejected'),
    ("core/ledger/migrations/versions/", ""),
    ("core/ledger/records.py", '"rejected": self.rejected'),
    ("core/ledger/states.py", "CANCELED = "),
    ("core/ledger/tables.py", 'Column("rejected"'),
    ("core/planning/status.py", "CANCELED = "),
    ("core/planning/steps.py", "CANCELED = "),
    ("core/recovery/rebuild.py", '"rejected": manifest.rejected'),
    ("emulator/", ""),
]


def _literals(source: str) -> Iterator[ast.Constant]:
    """Strings that are result types, and any string that a result type is compared with."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in _WORDS:
            yield node
        if isinstance(node, ast.Compare):
            yield from _compared([node.left, *node.comparators])
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("equal", "not_equal", "is_in"):
            yield from _compared(node.args)


def _compared(sides: list[ast.expr]) -> Iterator[ast.Constant]:
    of_rows = [side for side in sides if _is_result_type(side)]
    for other in (side for side in sides if of_rows and side not in of_rows):
        for node in ast.walk(other):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node


def _is_result_type(node: ast.expr) -> bool:
    """Whether it is a column or attribute of that name, and not the name itself."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr == "result_type":
            return True
        if isinstance(part, ast.Subscript | ast.Call) and any(
            isinstance(name, ast.Constant) and name.value == "result_type" for name in ast.iter_child_nodes(part)
        ):
            return True
    return False


def _findings(path: str, source: str) -> list[str]:
    lines = source.split("\n")
    findings = []
    for literal in _literals(source):
        statement = lines[literal.lineno - 1]
        inside_enum = path == "core/answers/result_types.py"
        if inside_enum or any(path.startswith(file) and code in statement for file, code in _OTHERS):
            continue
        findings.append(f"{path}:{literal.lineno}: {statement.strip()}")
    return findings


def test_no_result_type_is_written_as_a_string() -> None:
    sources = {str(path.relative_to(_PACKAGE)): path.read_text("utf-8") for path in _PACKAGE.rglob("*.py")}
    assert len(sources) > 200
    findings = [finding for path, source in sorted(sources.items()) for finding in _findings(path, source)]
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    "planted",
    [
        'row.result_type == "canceled"',
        'row.result_type == "submited"',
        'table["result_type"] != "submited"',
        'pc.equal(table["result_type"], "submited")',
        'pc.is_in(batch.column("result_type"), pa.array(["failed"]))',
        'result_type in ("errored", "canceled")',
        'counts["succeeded"]',
        'counts.get("pending", 0)',
        '_ORDER = ("succeeded", "errored")',
        'values = {"result_type": "errored"}',
        "match kind:\n    case 'expired': pass",
    ],
)
def test_a_result_type_that_is_written_as_a_string_is_found(planted: str) -> None:
    assert _findings("core/results/planted.py", planted)


@pytest.mark.parametrize(
    "innocent",
    [
        "row.result_type == ResultType.CANCELED",
        'table.select(["result_type", "error_type"])',
        'pc.equal(table["error_type"], "invalid_output")',
        'if name == "result_type": pass',
        'pc.equal(table["result_type"], ResultType.SUCCEEDED)',
    ],
)
def test_other_strings_are_ignored(innocent: str) -> None:
    assert not _findings("core/results/planted.py", innocent)


def test_every_result_type_is_documented() -> None:
    tree = ast.parse((_PACKAGE / "core/answers/result_types.py").read_text("utf-8"))
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    for part, following in zip(kind.body, kind.body[1:], strict=False):
        if isinstance(part, ast.Assign):
            assert isinstance(following, ast.Expr), ast.unparse(part)
            assert isinstance(following.value, ast.Constant), ast.unparse(part)


def test_every_type_is_answered_failed_or_pending() -> None:
    assert set(ResultType) - set(FAILED) == {ResultType.SUCCEEDED, ResultType.PENDING}


def test_the_failed_share_expects_of_pending_rows_what_became_of_those_that_were_sent() -> None:
    counts = {"succeeded": 6, "errored": 2, "rejected": 20, "pending": 72}
    assert (failed_rows(counts), final_rows(counts), failed_share(counts)) == (22, 28, (20 + 80 * 2 / 8) / 100)
    assert failed_share({"expired": 3, "succeeded": 97, "pending": 4}) == 3 / 100
    assert failed_share({}) == failed_share({"pending": 3}) == 0.0
    # A limit of 20 rows, in a dataset with two rows that are rejected.
    assert failed_share({"succeeded": 20, "rejected": 2, "pending": 493}) == 2 / 515
    assert failed_share({"errored": 20, "rejected": 2, "pending": 493}) == 1
    # Without pending rows it is exactly what `max_failed` is compared with.
    for failed, rejected, succeeded in ((1, 0, 99), (3, 4, 93), (7, 1, 3), (29, 0, 71), (0, 3, 0)):
        total = failed + rejected + succeeded
        assert failed_share({"errored": failed, "rejected": rejected, "succeeded": succeeded}) == (
            (failed + rejected) / total
        )


def test_the_description_of_the_column_names_every_type_in_order() -> None:
    named = DESCRIPTIONS["result_type"].split("`")[1::2]
    assert named == list(ResultType)
