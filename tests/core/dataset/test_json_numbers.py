"""Numbers of JSON Lines print what is written, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.errors import DatasetError
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates
from batch_assets.core.template.rendering import CURRENT, Rendering

from ..support import make_pipeline, params


def prompts(folder: Path, lines: list[str], rendering: Rendering = CURRENT, **dataset: Any) -> list[str]:
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines))
    pipeline = make_pipeline(folder, {"path": "a.jsonl"} | dataset, params=params("= {{ v }} {{ w }}"))
    found: list[str] = []
    with Dataset(pipeline) as opened:
        renderer = RowRenderer(pipeline, opened, row_templates(pipeline, opened, rendering), rendering)
        for rows in opened.rows(list(dict.fromkeys([opened.key, *renderer.reads]))):
            rejects: dict[int, tuple[str, str]] = {}
            rendered = {at: orjson.loads(body) for at, _, body, _ in renderer.render(rows, rejects)}
            for at in range(len(rows.table)):
                body = rendered.get(at)
                found.append(body["messages"][0]["content"] if body else f"{rejects[at][0]}: {rejects[at][1]}")
    return found


@pytest.mark.parametrize(
    ("written", "text", "before"),
    [
        ("9007199254740993.0", "9007199254740993", "9007199254740992.0"),
        ("-9007199254740993.000", "-9007199254740993", "-9007199254740992.0"),
        ("9007199254740993.5", "9007199254740993.5", "9007199254740994.0"),
        ("9.007199254740993e15", "9007199254740993", "9007199254740992.0"),
        ("90071992547409930E-1", "9007199254740993", "9007199254740992.0"),
        ("12345678901234567890.0", "12345678901234567890", "1.2345678901234567e+19"),
        ("-0.0", "-0.0", "0"),
        # As before:
        ("9007199254740994.0", "9007199254740994.0", "9007199254740994.0"),
        ("1.0", "1", "1"),
        ("1e5", "100000", "100000"),
        ("1e22", "1e+22", "1e+22"),
        ("1.23e300", "1.23e+300", "1.23e+300"),
        ("1.2345678901234567891e300", "1.2345678901234568e+300", "1.2345678901234568e+300"),
        ("0.5", "0.5", "0.5"),
        ("1.50", "1.5", "1.5"),
        ("0.1234567890123456", "0.1234567890123456", "0.1234567890123456"),
        ("9007199254740993", "9007199254740993", "9007199254740993"),
        ("9223372036854775807", "9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808", "9223372036854775808"),
        ("-9223372036854775809", "-9223372036854775809", "-9223372036854775809"),
        ("18446744073709551616", "18446744073709551616", "18446744073709551616"),
        ("1" + "0" * 400, "1" + "0" * 400, "1" + "0" * 400),
        ('"9007199254740993.0"', "9007199254740993.0", "9007199254740993.0"),
        ('"a, -0.0, 9007199254740993.0 "', "a, -0.0, 9007199254740993.0 ", "a, -0.0, 9007199254740993.0 "),
    ],
)
def test_a_number_prints_as_it_is_written(tmp_path: Path, written: str, text: str, before: str) -> None:
    lines = [f'{{"v": {written}}}', f'{{"w":[{written}]}}', '{"v":1.0,"w":"x"}', f'{{"w":[{{"k":{written}}}]}}']
    for rendering, expected in ((CURRENT, text), (Rendering.OWN, before)):
        shown = expected if '"' not in written else f"'{expected}'"
        assert prompts(tmp_path, lines, rendering) == [
            f"= {expected} ",
            f"=  [{shown}]",
            "= 1 x",
            f"=  [{{'k': {shown}}}]",
        ]


@pytest.mark.parametrize("written", ["1e400", "-1E+400", "123.4e999"])
def test_a_number_beyond_a_double_is_refused_by_name(tmp_path: Path, written: str) -> None:
    lines = ['{"v": 1, "w": null}', f'{{"v": {{"k": [{written}]}}}}']
    problem = f"a.jsonl, line 2: the number {written} is too large for a double"
    with pytest.raises(DatasetError) as caught:
        prompts(tmp_path, lines)
    assert problem in str(caught.value)
    first, second = prompts(tmp_path, lines, bad_rows="reject")
    assert first == "= 1 "
    assert second.startswith("unreadable_row: ")
    assert problem in second


def test_a_declared_type_comes_before_what_is_written(tmp_path: Path) -> None:
    for rendering in (CURRENT, Rendering.OWN):
        assert prompts(tmp_path, ['{"v": -0.0, "w": 1}'], rendering, types={"v": "double"}) == ["= 0.0 1"]
