"""A value from a row rejects the row if the API would refuse it in that field."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.template.values import RowRejectedError

from ..support import World, params

BLOCK = {"type": "text", "text": "a"}
CONTENT = "params.messages[0].content"


def rendered(folder: Path, body: dict[str, Any], value: Any, **more: Any) -> Any:
    attributes = {"name": "asked", "dataset": {"path": "a.csv"}, "params": body, **more}
    pipeline = load_pipeline(attributes, folder=folder)
    template = pipeline.templates_for(["v", "text"]).params
    return orjson.loads(template.render({"v": value, "text": "a"}))


def content(value: Any, **more: Any) -> dict[str, Any]:
    return params(messages=[{"role": "user", "content": value, **more}])


def picture(url: str) -> dict[str, Any]:
    return content([{"type": "image", "source": {"type": "url", "url": url}}, BLOCK])


@pytest.mark.parametrize(
    ("body", "value", "problem"),
    [
        (params(max_tokens="{{ v }}"), None, "params.max_tokens: null where a whole number is wanted"),
        (params(max_tokens="{{ v }}"), "hello", "params.max_tokens: 'hello' where a whole number is wanted"),
        (params(max_tokens="{{ v }}"), 1.0, "params.max_tokens: 1.0 where a whole number is wanted"),
        (params(max_tokens="{{ v }}"), True, "params.max_tokens: true where a whole number is wanted"),
        (params(max_tokens="{{ v }}"), 0, "params.max_tokens: a batch refuses 0: give at least 1"),
        (content("a", role="{{ v }}"), None, "params.messages[0].role: null where 'user'"),
        (content("a", role="{{ v }}"), "hello", "params.messages[0].role: there is no 'hello' here"),
        (content("{{ v }}"), {"x": 1}, f"{CONTENT}: an object where text or a list is wanted"),
        (content("{{ v }}"), [{"x": 1}], f"{CONTENT}[0].type: this field is required here"),
        (content("{{ v }}"), ["a"], f"{CONTENT}[0]: 'a' where an object is wanted"),
        (content(["{{ v }}", BLOCK]), ["a", "b"], f"{CONTENT}[0][0]: 'a' where an object is wanted"),
        (content(["{{ v }}", BLOCK]), "a", f"{CONTENT}[0]: 'a' where an object is wanted"),
        (params(messages=["{{ v }}"]), [{"role": "usr", "content": "a"}], "params.messages[0][0].role: there is"),
        (params(thinking="{{ v }}"), None, "params.thinking: null where an object is wanted"),
        (params(stop_sequences="{{ v }}"), "a", "params.stop_sequences: 'a' where a list is wanted"),
        (params(metadata={"user_id": "{{ v }}"}), {"a": 1}, "params.metadata.user_id: an object where text"),
        (picture("{{ v }}"), None, "params.messages[0].content[0].source.url: null where text is wanted"),
        (picture("{{ v }}"), b"a", "params.messages[0].content[0].source.url: bytes are not text: use | base64"),
        (content("Read: {{ v }}"), b"a", f"{CONTENT}: bytes are not text: use | base64, or .decode()"),
        (content("Read: {{ v | upper }} {{ v }}"), b"a", f"{CONTENT}: bytes are not text: use | base64"),
        (content("Read: {{ v | base64 }}"), b"", f"{CONTENT}: there are no bytes in it"),
        (content("Read: {{ v | base64 }}"), None, f"{CONTENT}: the value is null, which has no Base64 form"),
        (params(output_config={"effort": "{{ v }}"}), "lowish", "params.output_config.effort: there is no 'lo"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_rejects_the_row(
    tmp_path: Path, body: dict[str, Any], value: Any, problem: str
) -> None:
    with pytest.raises(RowRejectedError) as caught:
        rendered(tmp_path, body, value)
    assert caught.value.message.startswith(problem)
    assert caught.value.error_type == "template_error"
    assert "leave the field out" not in caught.value.message


@pytest.mark.parametrize(("value", "sent"), [(5, "5"), (True, "True"), ("a", "a"), (None, None), ("", "")])
def test_numbers_become_text_where_text_is_wanted(tmp_path: Path, value: Any, sent: Any) -> None:
    body = params("a", metadata={"user_id": "{{ v }}"})
    assert rendered(tmp_path, body, value)["metadata"] == {"user_id": sent}


def test_bytes_can_be_decoded_to_text(tmp_path: Path) -> None:
    assert rendered(tmp_path, content("Read: {{ v.decode() }}"), "hällo".encode())["messages"][0]["content"] == (
        "Read: hällo"
    )


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (params(max_tokens="{{ v }}"), 5),
        (params(max_tokens="{{ 9 if v is none else v }}"), None),
        (content("a", role="{{ v }}"), "assistant"),
        (content("{{ v }}"), "text"),
        (content("{{ v }}"), 5),
        (content("{{ v }}"), [BLOCK]),
        (content("{{ v }}"), (BLOCK,)),
        (content(["{{ v }}", BLOCK]), [BLOCK, BLOCK]),
        (content(["{{ v }}", BLOCK]), None),
        (content([{"type": "{{ v }}", "text": "a"}]), "text"),
        (params(model="{{ v }}"), "claude-of-next-year"),
        (params(metadata={"user_id": "{{ v }}"}), None),
        (params(metadata={"user_id": "{{ v }}"}), Decimal("1.5")),
        (params(tools=[{"name": "a", "input_schema": {"type": "object", "properties": {"x": "{{ v }}"}}}]), 5),
    ],
)
def test_values_that_the_api_accepts_are_rendered(tmp_path: Path, body: dict[str, Any], value: Any) -> None:
    rendered(tmp_path, body, value)


LONG = f"a whole number has more than {sys.get_int_max_str_digits()} digits, too many to print"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (content("{{ v * v }}"), CONTENT),
        (content("{{ v * v }} items"), CONTENT),
        (content("{{ v }}{{ v * v }}"), CONTENT),
        (content("{{ (v * v) | string }}"), CONTENT),
        (content(["{{ {'type': 'text', 'text': v * v} }}"]), f"{CONTENT}[0].text"),
        (params(metadata={"user_id": "{{ v * v }}"}), "params.metadata.user_id"),
        (params(max_tokens="{{ 0 - v * v }}"), "params.max_tokens"),
    ],
)
def test_a_number_with_too_many_digits_to_print_rejects_its_row(
    tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(RowRejectedError) as caught:
        rendered(tmp_path, body, 10**4000)
    assert caught.value.message.removesuffix(" (line 1)") == f"{field}: {LONG}"


def test_a_column_with_a_number_that_cannot_be_printed_rejects_its_row(tmp_path: Path) -> None:
    with pytest.raises(RowRejectedError, match=LONG):
        rendered(tmp_path, content("= {{ v }}"), 10**5000)


def test_an_undefined_value_within_an_object_rejects_its_row(tmp_path: Path) -> None:
    with pytest.raises(RowRejectedError, match=r"content\[0\].text: 'dict object' has no attribute 'b'"):
        rendered(tmp_path, content(["{{ {'type': 'text', 'text': v.b} }}"]), {"a": 1})


@pytest.mark.parametrize("value", ["{{ 10**4500 }}", 10**4500], ids=["expression", "number"])
def test_a_constant_with_too_many_digits_to_print_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"messages\\[0\\].content: {LONG}"):
        rendered(tmp_path, content(value), 1)


def test_allow_unknown_params_accepts_new_words_but_no_other_kinds_of_values(tmp_path: Path) -> None:
    for body, value in [(content(["{{ v }}"]), {"type": "hologram"}), (content("a", role="{{ v }}"), "narrator")]:
        rendered(tmp_path, body, value, allow_unknown_params=True)
        with pytest.raises(RowRejectedError):
            rendered(tmp_path, body, value)
    with pytest.raises(RowRejectedError):
        rendered(tmp_path, params(max_tokens="{{ v }}"), "a", allow_unknown_params=True)


def test_stop_sequences_may_end_up_empty_but_prompts_may_not(tmp_path: Path) -> None:
    assert rendered(tmp_path, params(stop_sequences=["{{ v }}"]), None)["stop_sequences"] == []
    with pytest.raises(RowRejectedError, match="no entry of the list is left"):
        rendered(tmp_path, content(["{{ v }}"]), None)


def test_file_base64_needs_text_as_the_path(tmp_path: Path) -> None:
    for value, problem in ((None, "not null"), (5, "not 5")):
        with pytest.raises(RowRejectedError, match=f"file_base64 takes the path of a file, {problem}"):
            source = {"type": "base64", "media_type": "image/png", "data": "{{ v | file_base64 }}"}
            rendered(tmp_path, content([{"type": "image", "source": source}]), value)


def test_a_rejected_row_does_not_stop_the_others(world: World) -> None:
    body = params("{{ text }}", max_tokens="{{ text | length or none }}")
    table = world.run(world.pipeline({"a": "abc", "b": " ", "c": "abcd"}, params={**body, "system": "s"}))
    assert list(table["result_type"]) == ["succeeded", "rejected", "succeeded"]
