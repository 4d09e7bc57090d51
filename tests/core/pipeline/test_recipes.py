"""Every recipe runs unchanged on the emulator, and its table has the columns that the recipe promises."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.testing import PromptSnapshot, RunPipeline

PROJECT = Path(__file__).parents[3]
RECIPES = PROJECT / "docs" / "recipes"
TEXT, LONG, YES = pa.string(), pa.int64(), pa.bool_()
# The number of rows, and the columns in addition to those of every table.
PROMISED: dict[str, tuple[int, dict[str, pa.DataType]]] = {
    "classification": (5, {"team": pa.dictionary(pa.int32(), TEXT), "confidence": pa.float64()}),
    "extraction": (
        3,
        {
            "customer": TEXT,
            "deliver_by": pa.date32(),
            "address": pa.struct({"street": TEXT, "city": TEXT, "postal_code": TEXT}),
            "articles": pa.list_(
                pa.struct({"name": TEXT, "quantity": LONG, "unit": pa.dictionary(pa.int32(), TEXT)})
            ),
        },
    ),
    "translation": (4, {}),
    "summarization": (2, {}),
    "judge": (3, {"reason": TEXT, "correct": YES, "score": LONG}),
    "moderation": (
        4,
        {
            "action": pa.dictionary(pa.int32(), TEXT),
            "reasons": pa.list_(pa.dictionary(pa.int32(), TEXT)),
        },
    ),
    "documents": (
        2,
        {"invoice_number": TEXT, "sender": TEXT, "total": pa.float64(), "currency": TEXT, "due_on": pa.date32()},
    ),
    "images": (2, {}),
}


def test_every_recipe_is_tested_and_listed() -> None:
    folders = {path.parent.name for path in RECIPES.glob("*/defs.yaml")}
    assert folders == set(PROMISED)
    index = (RECIPES / "README.md").read_text()
    assert all(f"({name}/defs.yaml)" in index for name in folders)


@pytest.mark.parametrize("name", PROMISED)
def test_a_recipe_runs_unchanged(run_pipeline: RunPipeline, name: str, tmp_path: Path) -> None:
    table = run_pipeline(RECIPES / name)
    rows, columns = PROMISED[name]
    assert list(table["result_type"]) == ["succeeded"] * rows
    assert table["error_type"].isna().all(), list(table["error_message"])
    schema = pq.read_schema(tmp_path / "batch_assets" / name / "results" / "results.parquet")
    for column, type_ in columns.items():
        assert schema.field(column).type == type_, column
    assert ("tool_calls" in schema.names) is False


@pytest.mark.parametrize("name", PROMISED)
def test_the_requests_of_a_recipe_are_as_they_were_reviewed(prompt_snapshot: PromptSnapshot, name: str) -> None:
    prompt_snapshot(RECIPES / name, most=2)
