"""The filters `tojson` and `fromjson`, and keys of objects that are named like methods."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.template.json_filters import from_json, to_json
from batch_assets.core.template.template import Template
from batch_assets.core.template.values import RowRejectedError


def rendered(content: str, folder: Path, row: dict[str, Any] | None = None) -> Any:
    template = Template({"content": content}, folder, "defs.yaml", dataset=["v"])
    return json.loads(template.render({"v": row}))["content"]


VALUE = {
    "z": "<a href='x'>Käse & 日本</a>\u2028\n\"\\",
    "a": [1, 2.5, True, None, {}, []],
    "day": dt.date(2024, 1, 2),
    "at": dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    "time": dt.time(3, 4),
    "price": decimal.Decimal("1.50"),
    "tiny": decimal.Decimal("0E-10"),
    "nan": float("nan"),
    "inf": float("-inf"),
    "big": 2**70,
    7: {None: 1, True: 2},
}
LINE = (
    '{"z": "<a href=\'x\'>Käse & 日本</a>\u2028\\n\\"\\\\", "a": [1, 2.5, true, null, {}, []], '
    '"day": "2024-01-02", '
    '"at": "2024-01-02T03:04:05+00:00", "time": "03:04:00", "price": 1.50, "tiny": 0.0000000000, "nan": null, '
    '"inf": null, "big": 1180591620717411303424, "7": {"null": 1, "true": 2}}'
)


def test_tojson_writes_values_as_a_person_would(tmp_path: Path) -> None:
    assert to_json(VALUE) == LINE
    assert rendered("{{ v | tojson }}!", tmp_path, VALUE) == LINE + "!"
    assert rendered("{{ (v | tojson) ~ '<' }}", tmp_path, VALUE) == LINE + "<"


@pytest.mark.parametrize("value", [{}, [], [[]], {"a": {"b": [1, {"c": None}]}, "d": "x"}, [1, "ü"], "x", None])
@pytest.mark.parametrize("indent", [None, 0, 2, 4])
def test_tojson_has_the_layout_of_python(value: Any, indent: int | None) -> None:
    assert to_json(value, indent) == json.dumps(value, indent=indent, ensure_ascii=False)


def test_tojson_takes_what_filters_and_methods_return(tmp_path: Path) -> None:
    row = {"b": 1, "a": [{"x": 1}, {"x": 2}]}
    assert rendered("{{ v.a | map(attribute='x') | tojson }}", tmp_path, row) == "[1, 2]"
    assert rendered("{{ v.keys() | tojson }} {{ range(2) | tojson }}", tmp_path, row) == '["b", "a"] [0, 1]'
    assert rendered("{{ v.a | tojson(indent=1) }}", tmp_path, {"a": [1]}) == "[\n 1\n]"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{{ v.raw | tojson }}", "bytes have no JSON form: use | base64"),
        ("{{ v.missing | tojson }}", "no attribute 'missing'"),
        ("{{ range | tojson }}", "has no JSON form"),
        ("{{ namespace(a=1) | tojson }}", "a Namespace has no JSON form"),
        ("{{ v | tojson(indent=10**9) }}", "a value of more than"),
        ("{{ v.text | fromjson }}", "fromjson: the text is not JSON: Expecting"),
        ("{{ v.number | fromjson }}", "fromjson takes JSON text, not a number"),
        ("{{ v | fromjson }}", "fromjson takes JSON text, not an object"),
        ("{{ v.deep | fromjson }}", "fromjson: the text is nested too deeply"),
    ],
)
def test_what_has_no_json_form_rejects_its_row(tmp_path: Path, content: str, problem: str) -> None:
    row = {"raw": b"x", "text": "{oops", "number": 1, "deep": "[" * 100_000}
    with pytest.raises(RowRejectedError, match=problem):
        rendered("<" + content, tmp_path, row)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"b": [1.0, 2.5, 1e3], "a": {"x": null}}', {"b": [1, 2.5, 1000], "a": {"x": None}}),
        ("12345678901234567890123", 12345678901234567890123),
        ("[9007199254740993.0, 9007199254740994.0]", [2**53 + 1, 2.0**53 + 2]),
        ("[1e22, 9.007199254740993e15, 123456789e-2, -0.0]", [1e22, 2**53 + 1, 1234567.89, -0.0]),
        ("[NaN, Infinity, -Infinity]", [None, None, None]),
        (' "ü" ', "ü"),
        ("true", True),
        (None, None),
    ],
)
def test_fromjson_takes_json_text_apart(text: str | None, value: Any) -> None:
    found = from_json(text)
    assert found == value
    assert json.dumps(found) == json.dumps(value)


def test_fromjson_before_rendering_3() -> None:
    assert from_json("[9007199254740993.0, 1e999, -0.0]", is_exact=False) == [9007199254740992.0, None, 0]


def test_json_in_a_text_cell_can_be_read(tmp_path: Path) -> None:
    row = {"cell": '{"b": [{"name": "x"}], "a": "ü"}'}
    content = "{% set d = v.cell | fromjson %}{{ d.b[0].name }} {{ d.a }} {{ d | tojson }}"
    assert rendered(content, tmp_path, row) == 'x ü {"b": [{"name": "x"}], "a": "ü"}'


def test_keys_named_like_methods_are_keys(tmp_path: Path) -> None:
    row = {name: number for number, name in enumerate(dir(dict)) if not name.startswith("_")}
    assert {"items", "keys", "values", "get", "pop", "copy", "update"} <= set(row)
    content = " ".join(f"{{{{ v.{name} }}}}" for name in row)
    assert rendered(content, tmp_path, row) == " ".join(map(str, row.values()))
    assert rendered("{{ v.items | int + 1 }} {{ v['keys'] }}", tmp_path, {"items": 1, "keys": "k"}) == "2 k"


def test_the_methods_of_an_object_can_be_called_whatever_its_keys(tmp_path: Path) -> None:
    row = {"items": [1], "keys": "k", "get": 2}
    content = (
        "{% for key, value in v.items() %}{{ key }}={{ value }};{% endfor %}{{ v.get('x', 'none') }}{{ v.get }}"
    )
    assert rendered(content, tmp_path, row) == "items=[1];keys=k;get=2;none2"
    assert rendered("{{ v.keys() | list }}", tmp_path, {"a": 1}) == ["a"]
    assert rendered(
        "{{ v.a.upper() }}{{ 'x'.upper() }}{{ v.a.split(',')[0].strip() }}", tmp_path, {"a": "b ,c"}
    ) == ("B ,CXb")


def test_a_method_that_is_not_called_is_a_missing_key(tmp_path: Path) -> None:
    with pytest.raises(RowRejectedError, match="'dict object' has no attribute 'items'"):
        rendered("<{{ v.items }}", tmp_path, {"a": 1})


def test_keys_of_data_files_are_keys_too(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("items: [a, b]\nday: 2024-01-02\n")
    content = "{{ load('data.yaml').items | join(',') }} {{ load('data.yaml') | tojson }} {{ v }}"
    assert rendered(content, tmp_path, {}) == 'a,b {"items": ["a", "b"], "day": "2024-01-02"} {}'
