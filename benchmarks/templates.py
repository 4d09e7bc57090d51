"""`python -m benchmarks.templates`: the cost of making a request from a row, compared with a plain script.

Three pipelines: a text in a prompt, a prompt with conditions and a loop over a list column, and an image from a
bytes column. The plain script does the same with jinja2 and json.dumps, without any of the checks. Both process
the same rows in turn, several rounds, in one process; medians are printed, and ratios are taken within each
round. Reading the dataset and writing the request file are not measured. KB are thousands of bytes.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from batch_assets.core.pipeline.load import load_pipeline
from benchmarks.workload import USER_TEMPLATE, params_for

Row = dict[str, Any]
Render = Callable[[Row], bytes]

_BRANCHING = """\
Order of {{ name }}:
{% for item in items %}- {{ item.title }}{% if item.count > 1 %} ({{ item.count }} times){% endif %}
{% else %}nothing
{% endfor %}{% if note %}Note: {{ note }}{% else %}No note.{% endif %}
"""
_ASK_OF_IMAGE = "What is in the picture?"
_IMAGE_BYTES = 100_000
_TEXT_CHARACTERS = 500
_ITEMS = 5


@dataclass(frozen=True)
class Workload:
    """One pipeline.

    Attributes:
        content: The content of the user message, as in the pipeline file.
        plain: Returns a function that makes the same content from a row without this project.
        row: Makes the row with a number.
        share: The fraction of the rows asked for that is rendered, because large rows take longer.
    """

    content: Any
    plain: Callable[[], Callable[[Row], Any]]
    row: Callable[[int], Row]
    share: float = 1.0


def _template(source: str) -> Callable[[Row], str]:
    template = jinja2.Environment(autoescape=False).from_string(source)
    return lambda row: template.render(row)


def _image(data: str) -> list[dict[str, Any]]:
    source = {"type": "base64", "media_type": "image/jpeg", "data": data}
    return [{"type": "image", "source": source}, {"type": "text", "text": _ASK_OF_IMAGE}]


def _order(number: int) -> Row:
    items = [
        {"title": f"tent peg {number + at}", "count": (number + at) % 3} for at in range(number % (2 * _ITEMS))
    ]
    return {"name": f"Zoë {number}", "items": items, "note": "ring twice" if number % 2 else None}


def _picture(number: int) -> Row:
    return {"photo": np.random.default_rng(number).bytes(_IMAGE_BYTES)}


WORKLOADS = {
    "text": Workload(
        USER_TEMPLATE,
        lambda: _template(USER_TEMPLATE),
        lambda number: {"text": f'{number} says: "it\'s ü". '.ljust(_TEXT_CHARACTERS, "x")},
    ),
    "branching": Workload(_BRANCHING, lambda: _template(_BRANCHING), _order),
    "image": Workload(
        _image("{{ photo | base64 }}"),
        lambda: lambda row: _image(base64.b64encode(row["photo"]).decode()),
        _picture,
        share=0.02,
    ),
}


def batch_assets(workload: Workload) -> Render:
    """This project's function from a row to the bytes of its params."""
    attributes = {"name": "bench", "dataset": {"path": "rows.parquet"}, "params": params_for(workload.content)}
    pipeline = load_pipeline(attributes, folder=Path())
    return pipeline.templates_for(sorted(pipeline.reads)).params.render


def plain_script(workload: Workload) -> Render:
    """A function that does this with jinja2 and json.dumps."""
    content = workload.plain()
    return lambda row: json.dumps(params_for(content(row))).encode()


def seconds(render: Render, rows: list[Row]) -> float:
    start = time.perf_counter()
    for row in rows:
        render(row)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.templates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    heads = f"{'rows':>8}{'KB/row':>8}{'us/row':>9}{'plain us':>10}{'ratio':>7}{'min-max':>12}"
    print(f"making one request from one row, {options.rounds} rounds, medians\n\n{'':14}{heads}")
    for name, workload in WORKLOADS.items():
        rows = [workload.row(number) for number in range(max(1, int(options.rows * workload.share)))]
        ours, plain = batch_assets(workload), plain_script(workload)
        if any(json.loads(ours(row)) != json.loads(plain(row)) for row in rows):
            sys.exit(f"{name}: the two do not ask the same")
        pairs = [(seconds(ours, rows), seconds(plain, rows)) for _ in range(options.rounds)]
        ratios = [ours_seconds / plain_seconds for ours_seconds, plain_seconds in pairs]
        size = sum(len(ours(row)) for row in rows) / len(rows)
        cost, plain_cost = (statistics.median(times) / len(rows) * 1e6 for times in zip(*pairs, strict=True))
        span = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(
            f"{name:14}{len(rows):8d}{size / 1000:8.1f}{cost:9.1f}{plain_cost:10.1f}"
            f"{statistics.median(ratios):7.2f}{span:>12}"
        )


if __name__ == "__main__":
    main()
