"""The text of values in prompts: null is nothing in filters too, and nested values look as they do alone."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from batch_assets.core.template.rendering import Rendering
from batch_assets.core.template.template import Template
from batch_assets.core.template.values import RowRejectedError

INF = float("inf")
ROW = {
    "n": None,
    "a": "x",
    "list": ["x", None, 1],
    "obj": {"k": None, "day": dt.date(2024, 1, 2)},
    "inf": INF,
    "nan": float("nan"),
    "price": Decimal("1.50"),
    "raw": b"x",
}


def render(source: str, rendering: Rendering = Rendering.WRITTEN, **row: Any) -> Any:
    values = ROW | row
    template = Template({"p": source}, Path("/nowhere"), "defs.yaml", dataset=list(values), rendering=rendering)
    return orjson.loads(template.render(values))["p"]


@pytest.mark.parametrize(
    ("source", "text", "before"),
    [
        ("{{ n }}", "", ""),
        ("{{ n | upper }}", "", "NONE"),
        ("{{ n | lower }}", "", "none"),
        ("{{ n | capitalize }}", "", "None"),
        ("{{ n | title }}", "", "None"),
        ("{{ n | trim }}", "", "None"),
        ("{{ n | string }}", "", "None"),
        ("{{ n | e }}{{ n | escape }}{{ n | forceescape }}{{ n | safe }}", "", "NoneNoneNoneNone"),
        ("{{ n | striptags }}", "", "None"),
        ("{{ n | urlencode }}", "", "None"),
        ("{{ {'a': n, n: 1} | urlencode }}", "a=&=1", "a=None&None=1"),
        ("{{ n | center(6) }}", "      ", " None "),
        ("{{ n | wordcount }}", "0", "1"),
        ("{{ n | pprint }}", "", "None"),
        ("{{ n | replace('o', '0') }}", "", "N0ne"),
        ("{{ a | replace('x', n) }}", "", "None"),
        ("{{ a | replace('x', 'yx', 1) }}", "yx", "yx"),
        ("{{ n | map('upper') | join if n else n | upper }}", "", "NONE"),
        ("{{ list | map('upper') | join('-') }}", "X--1", "X-NONE-1"),
        ("{{ list | join(', ') }}", "x, , 1", "x, None, 1"),
        ("{{ list | join(n) }}", "x1", "xNoneNoneNone1"),
        ("{{ [obj, obj] | join('-', attribute='k') }}", "-", "None-None"),
        ("{{ a ~ n ~ 1 }}", "x1", "xNone1"),
        ("{{ '%s|%s' | format(n, a) }}", "|x", "None|x"),
        ("{{ '%(k)s' | format(k=n) }}", "", "None"),
        ("{{ '%s' % n }}", "", "None"),
        ("{{ '%s|%s' % (n, list) }}", "|['x', None, 1]", "None|['x', None, 1]"),
        ("{{ '%(k)s' % obj }}", "", "None"),
        ("{{ '{}|{:>3}|{!s}'.format(n, a, n) }}", "|  x|", "None|  x|None"),
        ("{{ '{0[k]}|{0[day]}|{0[day]:%Y}'.format(obj) }}", "|2024-01-02|2024", "None|2024-01-02|2024"),
        ("{{ '{k}'.format_map(obj) }}", "", "None"),
        ("{{ {'a': n, 'b': 1} | xmlattr }}", ' b="1"', ' b="1"'),
        ("{% filter upper %}{{ n }}{% endfilter %}", "", ""),
        ("{{ n | default('-', true) }}", "-", "-"),
        ("{{ n | tojson }}", "null", "null"),
        ("{{ list }}", "['x', None, 1]", "['x', None, 1]"),
    ],
)
def test_null_prints_as_nothing_wherever_text_is_made(source: str, text: str, before: str) -> None:
    assert render(source + ".") == text + "."
    assert render(source + ".", Rendering.OWN) == before + "."


@pytest.mark.parametrize("source", ["{{ n | truncate(3) }}.", "{{ n | indent(2) }}.", "{{ n | wordwrap(9) }}."])
def test_null_no_longer_rejects_its_row_in_a_filter_for_text(source: str) -> None:
    assert render(source) == "."
    with pytest.raises(RowRejectedError):
        render(source, Rendering.OWN)


VALUES: list[tuple[Any, str]] = [
    (Decimal("1.50"), "1.50"),
    (dt.date(2024, 1, 2), "'2024-01-02'"),
    (dt.datetime(2024, 1, 2, 3, 4), "'2024-01-02 03:04:00'"),
    (dt.time(3, 4), "'03:04:00'"),
    (dt.timedelta(days=1, seconds=2), "'1 day, 0:00:02'"),
    (UUID(int=1), "'00000000-0000-0000-0000-000000000001'"),
    (INF, "None"),
    (float("nan"), "None"),
    (Decimal("-Infinity"), "None"),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=str)
@pytest.mark.parametrize(
    ("nested", "around"),
    [
        (lambda value: [value], "[{}]"),
        (lambda value: (value,), "({},)"),
        (lambda value: {"a": [value, "x"]}, "{{'a': [{}, 'x']}}"),
        (lambda value: {value: True}, "{{{}: True}}"),
    ],
    ids=["list", "tuple", "object", "key"],
)
@pytest.mark.parametrize(
    "source",
    [
        "= {{ v }}",
        "= {{ v if v }}",
        "{{ v ~ '' }}",
        "{{ v | string }}",
        "{{ '%s' | format(v) }}",
        "{{ [v] | join }}",
    ],
)
def test_nested_values_look_as_they_do_alone(value: Any, text: str, nested: Any, around: str, source: str) -> None:
    assert render(source, v=nested(value)).removeprefix("= ") == around.format(text)


def test_what_has_always_printed_well_does_not_change() -> None:
    value = {"a": [1, 2.5, True, None, "x'y", "ü\n"], "b": {}, "c": [], 1: -0.0, "d": {"e": [[1]]}}
    for source in ("= {{ v }}", "= {{ v ~ '' }}", "= {{ v.items() }}", "= {{ v.a }}", "= {{ v.keys() }}"):
        assert render(source, v=value) == render(source, Rendering.OWN, v=value)
    assert render("= {{ v.items() }}", v={"a": Decimal("1.50")}) == "= dict_items([('a', 1.50)])"


@pytest.mark.parametrize(
    "source", ["= {{ [raw] }}", "= {{ raw ~ '' }}", "= {{ raw | upper }}", "{{ '%s' % raw }}."]
)
def test_bytes_are_no_text_also_when_they_are_nested(source: str) -> None:
    with pytest.raises(RowRejectedError, match=r"bytes are not text: use \| base64"):
        render(source)
    assert "b'" in render(source, Rendering.OWN).lower()


@pytest.mark.parametrize("value", [INF, -INF, float("nan"), Decimal("Infinity"), Decimal("NaN")], ids=str)
def test_numbers_that_json_cannot_write_print_as_null(value: Any) -> None:
    for source in (
        "<{{ v }}>",
        "<{{ v if v else v }}>",
        "<{{ v ~ '' }}>",
        "<{{ v | string }}>",
        "<{{ '%s' % v }}>",
    ):
        assert render(source, v=value) == "<>"
    assert render("<{{ [v] }}>", v=value) == "<[None]>"
    assert render("<{{ v | tojson }}{{ [v] | tojson }}>", v=value) == "<null[null]>"
    assert render("{{ v }}", v=value) is None
    assert render("{{ [v, {'a': v}] }}", v=value) == [None, {"a": None}]
    assert render("{{ v | abs }}", v=value) is None


def test_a_text_that_is_nothing_but_an_infinite_number_is_empty() -> None:
    template = Template({"content": "{{ inf }}"}, Path("/nowhere"), "defs.yaml", dataset=["inf"])
    with pytest.raises(RowRejectedError, match="content: the value is null"):
        template.render({"inf": INF})


def test_an_infinite_number_still_compares_as_one() -> None:
    assert render("{{ 'much' if inf > 100 else 'little' }}") == "much"
