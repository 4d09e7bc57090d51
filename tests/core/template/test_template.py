"""Render one row to the exact bytes of its params."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.core.errors import ConfigError
from batch_assets.core.template.template import RowRejectedError, Template

ANY_TEXT = st.text()  # without surrogates, like the text of a dataset


def render(params: Any, row: dict[str, Any] | None = None, folder: Path = Path("/nowhere")) -> Any:
    return orjson.loads(Template({"p": params}, folder, "x/defs.yaml").render(row or {}))["p"]


def rejected(params: dict[str, Any], row: dict[str, Any], folder: Path = Path("/nowhere")) -> RowRejectedError:
    with pytest.raises(RowRejectedError) as caught:
        Template(params, folder, "x/defs.yaml").render(row)
    return caught.value


def refused(params: dict[str, Any], folder: Path = Path("/nowhere")) -> ConfigError:
    """The error of loading the pipeline."""
    with pytest.raises(ConfigError) as caught:
        Template(params, folder, "x/defs.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        (5, 5),
        (2.5, 2.5),
        (True, True),
        (None, None),
        ("x", "x"),
        ([1, {"a": None}], [1, {"a": None}]),
        ({"b": 1, "a": [2]}, {"b": 1, "a": [2]}),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "2024-01-02T03:04:05+00:00"),
        (Decimal("1.50"), "1.50"),
    ],
)
@pytest.mark.parametrize(
    "source", ["{{ v }}", "{{v}}", " {{ v }}\n", "{{- v -}}", "{{ (v) }}", "{{ v if True else 0 }}"]
)
def test_a_whole_expression_keeps_the_type_of_its_value(source: str, value: Any, rendered: Any) -> None:
    assert render(source, {"v": value}) == rendered


def test_a_decimal_becomes_a_number_by_a_filter() -> None:
    assert render("{{ v | float }}", {"v": Decimal("1.50")}) == 1.5


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("v={{ v }}", "v=5"),
        ("{{ v }}{{ v }}", "55"),
        ("{{ v }} {{ v }}", "5 5"),
        ("a{{ n }}b", "ab"),  # null renders as nothing
        ("{% if v == 5 %}five{% endif %}", "five"),
        ("{# note #}{{ v }}", "5"),
        ("{{ '}} {{' }}", "}} {{"),
        ("{% raw %}{{ v }}{% endraw %}", "{{ v }}"),
        ("plain } text {", "plain } text {"),
    ],
)
def test_any_other_string_is_text(source: str, text: str) -> None:
    assert render(source, {"v": 5, "n": None}) == text


@pytest.mark.parametrize("name", ["content", "text", "system"])
@pytest.mark.parametrize(("value", "text"), [(5, "5"), (True, "True"), (Decimal("1.50"), "1.50"), ("x", "x")])
def test_a_scalar_becomes_text_where_the_api_wants_text(name: str, value: Any, text: str) -> None:
    assert render({name: "{{ v }}"}, {"v": value}) == {name: text}


@pytest.mark.parametrize("value", [None, "", "  \n\t", "\u3000\xa0"])
@pytest.mark.parametrize("source", ["{{ v }}", "{{ v }}\n", "{{ '' }}{{ v }}"])
def test_null_and_white_space_make_an_empty_prompt(source: str, value: Any) -> None:
    error = rejected({"messages": [{"role": "user", "content": source}]}, {"v": value})
    assert (error.error_type, "params.messages[0].content" in error.message) == ("empty_prompt", True)


def test_empty_text_in_blocks_from_the_dataset_makes_an_empty_prompt() -> None:
    block = [{"type": "text", "text": " "}]
    assert rejected({"messages": [{"content": "{{ v }}"}]}, {"v": block}).error_type == "empty_prompt"
    assert (
        rejected({"messages": "{{ v }}"}, {"v": [{"role": "user", "content": block}]}).error_type == "empty_prompt"
    )


def test_lists_are_spliced_in_and_null_drops_the_entry() -> None:
    last = {"role": "user", "content": "{{ text }}"}
    shots = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"shots": shots, "no": None, "one": shots[0], "text": "t"}
    messages = ["{{ shots }}", "{{ no }}", "{{ one }}", last]
    assert render(messages, row) == [*shots, shots[0], {"role": "user", "content": "t"}]
    assert render([last, "{{ no }}", "{{ none }}"], row) == [{"role": "user", "content": "t"}]
    assert rejected({"messages": ["{{ no }}"]}, row).error_type == "empty_prompt"
    assert refused({"messages": ["{{ none }}"]}).field == "params.messages"
    assert rejected({"messages": ["{{ e }}"]}, {"e": []}).error_type == "empty_prompt"


def test_lists_of_strings_stay_unchanged() -> None:
    assert render(["stop", "x {{ v }}", "{{ v }}"], {"v": 5}) == ["stop", "x 5", 5]


@pytest.mark.parametrize("source", ["{{ v.nope }}", "x {{ v.nope }}", "{{ v.nope.more }}", "x {{ v[0] }}"])
def test_an_undefined_value_rejects_the_row_and_names_the_field(source: str) -> None:
    error = rejected({"system": source}, {"v": {"a": 1}})
    assert error.error_type == "template_error"
    assert error.message.startswith("params.system: ")


@pytest.mark.parametrize("source", ["{{ 1 / v }}", "x {{ 1 / v }}", "{{ v + 'x' }} x", "{{ v.x() }}"])
def test_any_error_of_a_template_rejects_the_row(source: str) -> None:
    assert rejected({"system": source}, {"v": 0}).error_type == "template_error"


def test_a_lone_surrogate_in_a_rendered_text_rejects_the_row() -> None:
    for source in ("{{ v }}", "{{ v }} x"):
        assert rejected({"system": source}, {"v": "\ud83d"}).error_type == "invalid_unicode"
    assert rejected({"messages": "{{ v }}"}, {"v": [{"content": "\ud83d"}]}).error_type == "invalid_unicode"


def test_a_number_beyond_64_bits_rejects_the_row() -> None:
    error = rejected({"max_tokens": "{{ v }}"}, {"v": 2**70})
    assert (error.error_type, "max_tokens" in error.message) == ("template_error", True)


def test_keys_keep_the_order_of_the_pipeline_file_and_the_json_is_compact() -> None:
    params = {"z": 1, "a": {"y": "{{ v }}", "b": [True, None, 1.5, "ü"]}, "model": "m"}
    rendered = Template(params, Path("/nowhere"), "x").render({"v": 'quote " and \\ and \n'})
    expected = '{"z":1,"a":{"y":"quote \\" and \\\\ and \\n","b":[true,null,1.5,"ü"]},"model":"m"}'
    assert rendered == expected.encode()


def test_objects_from_the_dataset_keep_their_key_order() -> None:
    assert (
        Template({"p": "{{ v }}"}, Path("/nowhere"), "x").render({"v": {"z": 1, "a": 2}}) == b'{"p":{"z":1,"a":2}}'
    )


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_arrives_unchanged(first: str, second: str) -> None:
    row = {"a": first, "b": second}
    assert render("{{ a }}", row) == first
    assert render("<{{ a }}|{{ b }}>", row) == f"<{first}|{second}>"
    assert render(["{{ c }}"], {"c": [{"k": first}]}) == [{"k": first}]


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | ANY_TEXT,
                    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=8))  # fmt: skip
def test_any_json_value_arrives_unchanged(value: Any) -> None:
    assert render("{{ v }}", {"v": value}) == value


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), min_size=1))
def test_text_without_template_syntax_is_sent_as_written(text: str) -> None:
    assert render([text, {"k": text}]) == [text, {"k": text}]


@pytest.mark.parametrize(
    "text", ["one line", "ends\n", "two\n\n", "dos\r\nend\r\n", "", "\n", " a } b % c { d ", "Ünï\u2028x"]
)
def test_a_plain_text_file_is_included_like_jinja_does(tmp_path: Path, text: str) -> None:
    (tmp_path / "plain.md").write_bytes(text.encode())
    shortcut = Template({"k": "{% include 'plain.md' %}"}, tmp_path, "x")
    by_jinja = Template({"k": "{{ '' }}{% include 'plain.md' %}"}, tmp_path, "x")
    assert shortcut.render({}) == by_jinja.render({})


def test_includes_see_the_row(tmp_path: Path) -> None:
    (tmp_path / "inner.md").write_text("[{{ name }}]")
    (tmp_path / "system.md").write_text("Hello {% include 'inner.md' %}, {{ place }}")
    template = Template({"system": "{% include 'system.md' %}!"}, tmp_path, "x")
    assert template.columns == {"name", "place"}
    assert template.where("place") == "params.system (system.md, line 1)"
    assert orjson.loads(template.render({"name": "N", "place": "P"})) == {"system": "Hello [N], P!"}


def test_includes_see_the_variables_of_the_including_template(tmp_path: Path) -> None:
    (tmp_path / "item.md").write_text("- {{ item }} of {{ who }} ({{ name }})\n")
    source = "{% set who = 'them' %}{% for item in items %}{% include 'item.md' %}{% endfor %}"
    template = Template({"system": source}, tmp_path, "x")
    assert template.columns == {"items", "name"}
    rendered = orjson.loads(template.render({"items": ["a", "b"], "name": "n"}))["system"]
    assert rendered == "- a of them (n)- b of them (n)"


def test_macros_can_be_imported_from_another_file(tmp_path: Path) -> None:
    (tmp_path / "macros.md").write_text("{% macro shout(word) %}{{ word | upper }}!{% endmacro %}")
    source = "{% from 'macros.md' import shout %}{{ shout(v) }}"
    template = Template({"system": source}, tmp_path, "x")
    assert (template.columns, template.render({"v": "hey"})) == ({"v"}, b'{"system":"HEY!"}')


def test_a_template_that_reads_no_column_is_rendered_only_once(tmp_path: Path) -> None:
    """Its text has become a constant, so its file may be gone when rows are rendered."""
    (tmp_path / "system.md").write_text("The {{ 'same' }} for all")
    template = Template({"system": "{% include 'system.md' %}", "k": "{{ v }}"}, tmp_path, "x")
    (tmp_path / "system.md").unlink()
    assert template.render({"v": 1}) == b'{"system":"The same for all","k":1}'


@pytest.mark.parametrize(
    ("params", "field", "problems"),
    [
        ({"system": "{{ a"}, "params.system", "unexpected end|expected token"),
        ({"system": "x {% if %}"}, "params.system", "line 1"),
        ({"messages": [{"content": "{{ a b }}"}]}, "params.messages[0].content", "expected token"),
        ({"messages": ["{{ a | }}"]}, "params.messages[0]", ""),
        ({"system": "{{ a | nofilter }}"}, "params.system", "nofilter"),
        ({"system": "x {{ a | nofilter }}"}, "params.system", "nofilter"),
        ({"system": "{{ a is notest }}"}, "params.system", "notest"),
        ({"messages": ["{{ a | nofilter }}"]}, "params.messages[0]", "nofilter"),
        ({"system": "x {{ 1 / 0 }}"}, "params.system", "division by zero"),
        ({"system": "{% include 'nope.md' %}"}, "params.system", "'nope.md' is not beside"),
        ({"system": "  "}, "params.system", "the text is empty"),
        ({"system": "{{ none }}"}, "params.system", "the value is null"),
        ({"system": "{{ 'x'.upper }}"}, "params.system", "a function of the template language"),
        ({"messages": ["{{ [{'content': ''}] }}"]}, "params.messages[0][0].content", "the text is empty"),
        ({"system": None}, "params.system", "null where the API wants text"),
        ({"k": {1, 2}}, "params.k", "has no JSON form"),
        ({"system": "lone \ud83d"}, "params.system", "Unicode"),
        ({"system": "{{ a | random }}"}, "params.system", "random"),
    ],
)
def test_a_mistake_in_a_template_is_reported_at_load(params: dict[str, Any], field: str, problems: str) -> None:
    error = refused(params)
    assert (error.source, error.field) == ("x/defs.yaml", field)
    assert any(part in error.problem for part in problems.split("|"))


def test_a_syntax_error_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "system.md").write_text("line one\n{{ a b }}")
    assert "system.md, line 2" in refused({"system": "{% include 'system.md' %}"}, tmp_path).problem


def test_base64_encodes_bytes_and_text() -> None:
    assert render("{{ v | base64 }}", {"v": b"\x00\xff"}) == base64.b64encode(b"\x00\xff").decode()
    assert render("x{{ v | base64 }}", {"v": "ü"}) == "x" + base64.b64encode("ü".encode()).decode()
    assert rejected({"k": "{{ v }}"}, {"v": b"raw"}).error_type == "template_error"
    assert rejected({"system": "{{ v }}"}, {"v": b"raw"}).error_type == "template_error"


@pytest.mark.parametrize("empty", [[], {}])
def test_an_empty_list_where_the_api_wants_text_makes_an_empty_prompt(empty: Any) -> None:
    assert rejected({"content": "{{ v }}"}, {"v": empty}).error_type == "empty_prompt"
    assert rejected({"messages": ["{{ v }}"]}, {"v": {"content": empty}}).error_type == "empty_prompt"


@pytest.mark.parametrize("source", ["{{ v }}", ["{{ v }}"]])
def test_scalars_inside_values_from_the_dataset_become_text(source: Any) -> None:
    block = {"type": "text", "text": 2.5, "n": 1}
    messages = [{"role": "user", "content": 5}, {"role": "user", "content": [block]}]
    assert render(source, {"v": messages}) == [
        {"role": "user", "content": "5"},
        {"role": "user", "content": [{"type": "text", "text": "2.5", "n": 1}]},
    ]
    assert messages[0]["content"] == 5
