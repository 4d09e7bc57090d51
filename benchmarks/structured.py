"""`python -m benchmarks.structured`: JSON answers to typed columns, against json.loads + pydantic + DataFrame.

Two schemas: the one of the demo pipeline review_triage, whose columns are texts, numbers, enums and a list of
enums; and an invoice with a date, a time and a list of objects. The reference parses each answer with json.loads,
validates it with a pydantic model, and makes a DataFrame of all of them, like most scripts. Both read the same
answers in turn, several rounds, in one process; medians are printed, and ratios are taken within each round.
Answers come in slices, as when results are joined; reading and writing files is not measured.

Exits with 1 unless typed columns are at least 5 times faster. The limit applies to 100,000 answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.io.slices import SLICE_ROWS
from batch_assets.emulator.schema_instance import schema_instance
from benchmarks.limits import ROWS, Verdicts

_DEMO = Path(__file__).parents[1] / "batch_assets/defs/review_triage/output.schema.json"
_DISTINCT = 5000


class Review(BaseModel):
    """An answer of the demo pipeline."""

    sentiment: Literal["positive", "neutral", "negative", "mixed"]
    topics: list[
        Literal[
            "delivery",
            "returns",
            "sizing",
            "quality",
            "safety",
            "price",
            "billing",
            "app",
            "website",
            "customer_service",
            "packaging",
            "other",
        ]
    ]
    urgency: Literal[1, 2, 3, 4, 5]
    summary_en: str
    needs_reply: bool
    refund_amount: float | None


class Line(BaseModel):
    """A line of an invoice."""

    item: str
    count: int
    price: float


class Invoice(BaseModel):
    """An answer that extracts an invoice."""

    number: str
    day: date
    received: datetime
    currency: Literal["EUR", "USD", "GBP"]
    total: float | None
    lines: list[Line]


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_INVOICE = _closed(
    number={"type": "string"},
    day={"type": "string", "format": "date"},
    received={"type": "string", "format": "date-time"},
    currency={"enum": ["EUR", "USD", "GBP"]},
    total={"type": ["number", "null"]},
    lines={
        "type": "array",
        "items": _closed(item={"type": "string"}, count={"type": "integer"}, price={"type": "number"}),
    },
)


@dataclass(frozen=True)
class Workload:
    """Answers of one schema."""

    schema: dict[str, Any]
    model: type[BaseModel]


WORKLOADS = {
    "review": Workload(json.loads(_DEMO.read_text()), Review),
    "invoice": Workload(_INVOICE, Invoice),
}


def typed_columns(output: OutputSchema, slices: list[pa.StringArray]) -> pa.Table:
    """Convert answers with this project."""
    tables = []
    for texts in slices:
        arrays, problems = output.columns(texts)
        assert not any(problems)
        tables.append(pa.Table.from_arrays(arrays, names=output.names))
    return pa.concat_tables(tables)


def data_frame(model: type[BaseModel], texts: list[str]) -> pd.DataFrame:
    """Convert answers with the reference."""
    return pd.DataFrame(records(model, texts))


def records(model: type[BaseModel], texts: list[str]) -> list[dict[str, Any]]:
    """Answers as the model reads them."""
    return [model.model_validate(json.loads(text)).model_dump() for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.structured",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    verdicts = Verdicts(judging=options.rows == ROWS)
    heads = f"{'answers':>9}{'B/answer':>10}{'us/answer':>11}{'reference us':>14}{'ratio':>7}{'min-max':>12}"
    print(f"typed columns of structured answers, {options.rounds} rounds, medians\n\n{'':10}{heads}")
    ratios_by_name: dict[str, list[float]] = {}
    for name, workload in WORKLOADS.items():
        some = [orjson.dumps(schema_instance(workload.schema, seed)).decode() for seed in range(_DISTINCT)]
        texts = (some * (options.rows // _DISTINCT + 1))[: options.rows]
        slices = [pa.array(texts[at : at + SLICE_ROWS]) for at in range(0, len(texts), SLICE_ROWS)]
        output = OutputSchema(workload.schema)
        pairs = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            table = typed_columns(output, slices)
            between = time.perf_counter()
            data_frame(workload.model, texts)
            pairs.append((between - start, time.perf_counter() - between))
        if table.slice(0, _DISTINCT).to_pylist() != records(workload.model, texts[:_DISTINCT]):
            sys.exit(f"{name}: the two do not read the same")
        ratios = ratios_by_name[name] = [reference / ours for ours, reference in pairs]
        ours, reference = (statistics.median(times) / len(texts) * 1e6 for times in zip(*pairs, strict=True))
        size = sum(len(text.encode()) for text in texts) / len(texts)
        span = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(
            f"{name:10}{len(texts):9,}{size:10.0f}{ours:11.1f}{reference:14.1f}"
            f"{statistics.median(ratios):7.2f}{span:>12}"
        )
    print()
    for name, ratios in ratios_by_name.items():
        verdicts.faster_columns(name, ratios)
    sys.exit(1 if verdicts.missed else 0)


if __name__ == "__main__":
    main()
