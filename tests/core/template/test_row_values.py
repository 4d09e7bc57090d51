"""What a row gives where the API wants no text rejects the row when it is not what the API takes there."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.template.values import RowRejectedError

from ..support import World, params

BLOCK = {"type": "text", "text": "a"}
CONTENT = "params.messages[0].content"


def rendered(folder: Path, asked: dict[str, Any], value: Any, **more: Any) -> Any:
    attributes = {"name": "asked", "dataset": {"path": "a.csv"}, "params": asked, **more}
    pipeline = load_pipeline(attributes, folder=folder)
    template = pipeline.templates_for(["v", "text"]).params
    return orjson.loads(template.render({"v": value, "text": "a"}))


def content(value: Any, **more: Any) -> dict[str, Any]:
    return params(messages=[{"role": "user", "content": value, **more}])


def picture(url: str) -> dict[str, Any]:
    return content([{"type": "image", "source": {"type": "url", "url": url}}, BLOCK])


@pytest.mark.parametrize(
    ("asked", "value", "said"),
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
def test_another_kind_of_value_rejects_the_row(
    tmp_path: Path, asked: dict[str, Any], value: Any, said: str
) -> None:
    with pytest.raises(RowRejectedError) as caught:
        rendered(tmp_path, asked, value)
    assert caught.value.message.startswith(said)
    assert caught.value.reason == "template_error"
    assert "leave the field out" not in caught.value.message


@pytest.mark.parametrize(("value", "sent"), [(5, "5"), (True, "True"), ("a", "a"), (None, None), ("", "")])
def test_numbers_become_text_where_text_is_wanted(tmp_path: Path, value: Any, sent: Any) -> None:
    asked = params("a", metadata={"user_id": "{{ v }}"})
    assert rendered(tmp_path, asked, value)["metadata"] == {"user_id": sent}


def test_bytes_that_hold_text(tmp_path: Path) -> None:
    assert rendered(tmp_path, content("Read: {{ v.decode() }}"), "hällo".encode())["messages"][0]["content"] == (
        "Read: hällo"
    )


@pytest.mark.parametrize(
    ("asked", "value"),
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
def test_what_the_api_takes_is_sent(tmp_path: Path, asked: dict[str, Any], value: Any) -> None:
    rendered(tmp_path, asked, value)


def test_the_switch_lets_new_words_through_and_no_other_kinds(tmp_path: Path) -> None:
    for asked, value in [(content(["{{ v }}"]), {"type": "hologram"}), (content("a", role="{{ v }}"), "narrator")]:
        rendered(tmp_path, asked, value, allow_unknown_params=True)
        with pytest.raises(RowRejectedError):
            rendered(tmp_path, asked, value)
    with pytest.raises(RowRejectedError):
        rendered(tmp_path, params(max_tokens="{{ v }}"), "a", allow_unknown_params=True)


def test_stop_sequences_may_come_out_empty_and_prompts_may_not(tmp_path: Path) -> None:
    assert rendered(tmp_path, params(stop_sequences=["{{ v }}"]), None)["stop_sequences"] == []
    with pytest.raises(RowRejectedError, match="nothing is left of the list"):
        rendered(tmp_path, content(["{{ v }}"]), None)


def test_a_file_without_a_name(tmp_path: Path) -> None:
    for value, said in ((None, "not null"), (5, "not 5")):
        with pytest.raises(RowRejectedError, match=f"file_base64 takes the path of a file, {said}"):
            load = {"type": "base64", "media_type": "image/png", "data": "{{ v | file_base64 }}"}
            pipeline_asked = content([{"type": "image", "source": load}])
            rendered(tmp_path, pipeline_asked, value)


def test_the_other_rows_are_asked(world: World) -> None:
    asked = params("{{ text }}", max_tokens="{{ text | length or none }}")
    table = world.run(world.pipeline({"a": "abc", "b": " ", "c": "abcd"}, params={**asked, "system": "s"}))
    assert list(table["result_type"]) == ["succeeded", "rejected", "succeeded"]
