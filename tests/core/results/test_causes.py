"""Rows are grouped by why they failed, whatever position or value their error messages name."""

from __future__ import annotations

import pytest

from batch_assets.core.results.causes import Causes


def _causes(*messages: str, kind: str = "") -> Causes:
    causes = Causes()
    for message in messages:
        causes.add(kind, message)
    return causes


@pytest.mark.parametrize(
    "messages",
    [
        [f"the answer is not valid JSON: unexpected character: line 1 column {n} (char {n})" for n in (3, 14)],
        [
            "the property 'stars' is 7, which breaks maximum 5",
            "the property 'stars' is 'a, b', which breaks maximum 5",
        ],
        ["the property 'name' is 'x', of 1 characters, which breaks minLength 3"] * 2,
        [f"unexpected value 'x{n}' of the property 'tags[{n}]'; expected one of 'a', 'b'" for n in (0, 12)],
        [f"unexpected value {text!r} of the property 'mood'; expected one of 'a'" for text in ("x", "it's 'y'")],
        [
            f"cut off at max_tokens: the answer is not valid JSON: unexpected end of data: line 1 column {n}"
            for n in (1, 2)
        ],
        [
            "prompt is too long: 210000 tokens > 200000 maximum",
            "prompt is too long: 300000 tokens > 200000 maximum",
        ],
    ],
)
def test_a_cause_is_one_group(messages: list[str]) -> None:
    (cause,) = _causes(*messages, kind="invalid_request_error")
    assert (cause.rows, cause.example, cause.is_varied) == (2, messages[0], messages[0] != messages[1])
    start = "invalid_request_error, such as: " if cause.is_varied else "invalid_request_error: "
    assert cause.as_text(300) == start + messages[0]


@pytest.mark.parametrize(
    "messages",
    [
        ["the answer lacks the property 'q1'", "the answer lacks the property 'q2'"],
        ["the property 'a' is 7, which breaks maximum 5", "the property 'b' is 7, which breaks maximum 5"],
        ["unexpected value 'x' of the property 'mood'", "unexpected value 'x' of the property 'mode'"],
    ],
)
def test_different_causes_are_different_groups(messages: list[str]) -> None:
    assert [cause.example for cause in _causes(*messages)] == messages


def test_values_that_an_enum_does_not_have_are_told_apart_where_they_are_the_finding() -> None:
    messages = [
        f"unexpected value '{value}' of the property 'mood[1]'; expected one of 'a'" for value in (7, 8, 8)
    ]
    values = Causes(keeps_values=True)
    for message in messages:
        values.add("", message)
    together = Causes()
    together.update(values)
    for causes in (values, together):
        assert [(cause.example, cause.rows) for cause in causes] == [(messages[1], 2), (messages[0], 1)]


def test_the_most_frequent_cause_comes_first_and_there_is_a_limit() -> None:
    causes = _causes(*[f"no {'x' * length}" for length in range(150)], "no x", "no x")
    assert (causes.total(), causes.others, len(list(causes))) == (152, 50, 100)
    assert next(iter(causes)).example == "no x"
    more = _causes("no x", kind="")
    more.update(causes)
    assert (more.total(), next(iter(more)).rows) == (153, 4)
    assert next(iter(_causes("a" * 20))).as_text(10) == "aaaaaaaaa…"
    assert next(iter(_causes("", kind="expired"))).as_text(10) == "expired"
