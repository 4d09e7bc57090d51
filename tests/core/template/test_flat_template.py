"""Rows that are rendered at once give the same bytes, and are rejected for the same reasons, as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.core.template.row_values import row_checks
from batch_assets.core.template.template import RowRejectedError, Template

ODD_TEXTS = ['She wrote "yes",', '",', "\x1f", "a\x1f", "\\u001f", "\\\\", '\\",', "u001f", "],[", "{", "\ufeff"]
TEXTS = (
    st.text()
    | st.text('\\",u01f\x1f:[]{}', max_size=6)
    | st.sampled_from(ODD_TEXTS)
    | st.sampled_from(["", " \n", '","', "\\", '"', '\\"', '"],["', "a\\", "\u2028", "é", "\x00", "😀"])
)
VALUES = TEXTS | st.none() | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)

FLAT = {
    "text around": {"messages": [{"role": "user", "content": "Sum up:\n\n{{ a }}"}]},
    "text after": {"messages": [{"role": "user", "content": "{{ a }} is what?"}]},
    "several": {"system": "as {{ b }}", "messages": [{"role": "user", "content": '"{{ a }}", \\ {{ b }}{{ a }}'}]},
    "blank text": {"messages": [{"role": "user", "content": " {{ a }} {{ b }}"}]},
    "metadata": {"metadata": {"user_id": "u-{{ a }}"}, "messages": [{"role": "user", "content": "x {{ b }}"}]},
    "blocks": {"messages": [{"role": "user", "content": [{"type": "text", "text": "<{{ a }}>"}]}]},
    "not ASCII": {"system": "Größe 日本", "messages": [{"role": "user", "content": "ä{{ a }}ö"}]},
}
WHOLE = {
    "one column": {"messages": [{"role": "user", "content": "{{ a }}"}]},
    "two columns": {"system": "{{ b }}", "messages": [{"role": "user", "content": "{{ a }}"}]},
    "a block": {"messages": [{"role": "user", "content": [{"type": "text", "text": "{{ a }}"}]}]},
    "both": {"system": "as {{ a }}", "messages": [{"role": "user", "content": "{{ a }}"}]},
    "any value": {"stop_sequences": ["x"], "metadata": {"user_id": "{{ a }}"}, "messages": [{"role": "user"}]},
}
NOT_FLAT = {
    "a filter": "{{ a | upper }}",
    "a list": [{"type": "text", "text": "x"}, "{{ a }}"],
    "the row": "{{ row }}",
    "a condition": "{% if a %}x{% endif %}",
    "an attribute": "{{ a.b }}",
    "an image": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "{{ a }}"}}],
    "no column": "always the same",
}


def template(params: dict[str, Any]) -> Template:
    params = {"model": "claude-haiku-5-5", "max_tokens": 5, **params}
    outline = Template(params, Path("/nowhere"), "x/defs.yaml").outline()
    checks = row_checks(outline, betas=False)
    return Template(params, Path("/nowhere"), "x/defs.yaml", dataset=["a", "b"], checks=checks)


def one_by_one(rendering: Template, rows: Sequence[tuple[Any, Any]]) -> list[bytes | None]:
    rendered: list[bytes | None] = []
    for a, b in rows:
        try:
            rendered.append(rendering.render({"a": a, "b": b}))
        except RowRejectedError:
            rendered.append(None)
    return rendered


def same(rendering: Template, rows: Sequence[tuple[Any, Any]]) -> bool:
    """Whether rows render the same, or are left to be rendered one by one because of a control character."""
    rendered = at_once(rendering, rows)
    if rendered is None:
        return any(
            isinstance(value, str) and ("\x1f" in value or "\\u001f" in value) for row in rows for value in row
        )
    return rendered == one_by_one(rendering, rows)


def at_once(rendering: Template, rows: Sequence[tuple[Any, Any]]) -> list[bytes | None] | None:
    assert rendering.flat is not None
    columns = [[*column] for column in zip(*rows, strict=True)]
    escaped = rendering.flat.escaped(dict(zip("ab", columns, strict=True)))
    if escaped is None:
        return None
    middle = len(rows) // 2
    params = [*escaped.params(0, middle), *escaped.params(middle, len(rows))]
    assert escaped.sizes() == list(map(len, params))
    return [None if position in escaped.odd else body for position, body in enumerate(params)]


@pytest.mark.parametrize("name", FLAT)
@settings(max_examples=40)
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=9))
def test_text_and_columns_render_the_same(name: str, rows: list[tuple[Any, Any]]) -> None:
    assert same(template(FLAT[name]), rows)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=40)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=9))
def test_whole_columns_of_text_render_the_same(name: str, rows: list[tuple[Any, Any]]) -> None:
    assert same(template(WHOLE[name]), rows)


@pytest.mark.parametrize(
    "value", [5, 1.5, True, [], ["a"], {"type": "text"}, b"x", date(2024, 1, 2), Decimal("1.0")]
)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_columns_of_other_kinds_are_rendered_one_by_one(name: str, value: Any) -> None:
    assert at_once(template(WHOLE[name]), [("a", "b"), (value, "b")]) is None


def test_a_null_is_rejected_where_text_is_wanted_and_else_rendered_one_by_one() -> None:
    rows = [("a", "b"), (None, "b"), ("c", "d")]
    for name in ("one column", "a block", "both"):
        rendering = template(WHOLE[name])
        assert at_once(rendering, rows) == one_by_one(rendering, rows)
        assert one_by_one(rendering, rows)[1] is None
    assert at_once(template(WHOLE["any value"]), rows) is None


OTHERS = [b"x", date(2024, 1, 2), Decimal("1.50"), [1], {"a": 1}, [b"x"], {"a": [Decimal("1.50"), None]}]


@pytest.mark.parametrize("value", [*OTHERS, float("inf"), float("nan"), [float("inf")]])
@pytest.mark.parametrize("name", FLAT)
def test_other_values_in_text_render_the_same(name: str, value: Any) -> None:
    rendering, rows = template(FLAT[name]), [("a", "b"), (value, "c"), ("d", value)]
    assert at_once(rendering, rows) == one_by_one(rendering, rows)


def test_a_lone_surrogate_is_rendered_one_by_one() -> None:
    assert at_once(template(FLAT["text around"]), [("a", "b"), ("\ud800", "b")]) is None


@pytest.mark.parametrize("name", NOT_FLAT)
def test_templates_with_logic_are_rendered_one_by_one(name: str) -> None:
    assert template({"messages": [{"role": "user", "content": NOT_FLAT[name]}]}).flat is None


def test_a_number_from_a_row_is_checked() -> None:
    params = {"messages": [{"role": "user", "content": "x {{ b }}"}], "max_tokens": "{{ a }}"}
    assert template(params).flat is None


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_text_does_not_run_into_the_next(text: str) -> None:
    rendering, rows = template(FLAT["text around"]), [("a", "b"), (text, "b"), ("hello", "b"), ("c", "b")]
    assert same(rendering, rows)
    assert (at_once(rendering, rows) is None) == ("\x1f" in text or "\\u001f" in text)


def test_a_constant_that_is_not_unicode_rejects_every_row() -> None:
    rendering = template({"messages": [{"role": "user", "content": "\ud83d {{ a }}"}]})
    assert rendering.flat is None
    assert one_by_one(rendering, [("a", "b")]) == [None]
