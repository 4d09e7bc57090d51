"""The params are checked against the SDK's request types when a pipeline is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.errors import ConfigError
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline

from ..support import params


def load(folder: Path, params: dict[str, Any], **more: Any) -> Pipeline:
    attributes = {"name": "asked", "dataset": {"path": "a.csv"}, "params": params, **more}
    return load_pipeline(attributes, folder=folder, source="asked/defs.yaml")


def refused(folder: Path, params: dict[str, Any], **more: Any) -> tuple[str, str]:
    """(field, problem) of the error when the pipeline is loaded."""
    with pytest.raises(ConfigError) as caught:
        load(folder, params, **more)
    assert caught.value.source == "asked/defs.yaml"
    return caught.value.field, caught.value.problem


def message(content: Any = "{{ text }}", role: Any = "user", **more: Any) -> dict[str, Any]:
    return params(messages=[{"role": role, "content": content, **more}])


def source(**more: Any) -> dict[str, Any]:
    return message([{"type": "image", "source": {"type": "base64", "media_type": "image/png", **more}}])


TOOL = {"name": "note", "input_schema": {"type": "object", "properties": {"text": {}}}}
CONTENT = "params.messages[0].content"


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        (params(sytem="a"), "params.sytem", "no such field here: did you mean `system`?"),
        (params(zzz=1), "params.zzz", "known here: `cache_control`, `container`"),
        (message(cache_control={"type": "ephemeral"}), "params.messages[0].cache_control",
         "known here: `content`, `role`. It is a field of `params`, `text`"),
        (message(system="a"), "params.messages[0].system", "It is a field of `params`."),
        (message(role="assistent"), "params.messages[0].role", "did you mean `assistant`?"),
        (message([{"type": "imgae", "source": {}}]), f"{CONTENT}[0].type", "did you mean `image`?"),
        (message([{"type": "text", "text": "a", "title": "b"}]), f"{CONTENT}[0].title",
         "`search_result_location`, `document`, `search_result`"),
        (message([{"type": "text"}]), f"{CONTENT}[0].text", "this field is required here"),
        (message([{"text": "a"}]), f"{CONTENT}[0].type", "this field is required here: "),
        (message([{"type": 5}]), f"{CONTENT}[0].type", "5 where text is wanted: "),
        (message(5), CONTENT, "5 where text or a list is wanted: if you mean text, put it in quotes"),
        (message(True), CONTENT, "in YAML, yes, no, on and off are true and false"),
        (message({"type": "text", "text": "a"}), CONTENT, "an object where text or a list is wanted"),
        (source(data="a", media_type="image/bmp"), f"{CONTENT}[0].source.media_type", "did you mean `image/"),
        (source(), f"{CONTENT}[0].source.data", "this field is required here"),
        (params(messages="a"), "params.messages", "'a' where a list is wanted"),
        (params(messages=["a {{ b }}"]), "params.messages[0]", "write nothing but one {{ expression }}"),
        (params(max_tokens="100"), "params.max_tokens", "'100' where a whole number is wanted"),
        (params(max_tokens="100"), "params.max_tokens", "is wanted: leave the quotes out"),
        (params(max_tokens=100.0), "params.max_tokens", "100.0 where a whole number is wanted: write 100"),
        (params(max_tokens=1.5), "params.max_tokens", "1.5 where a whole number is wanted"),
        (params(max_tokens=True), "params.max_tokens", "true where a whole number is wanted"),
        (params(max_tokens="{{ 2 }}0"), "params.max_tokens", "'20' where a whole number is wanted"),
        (params(max_tokens="{{ n }}0"), "params.max_tokens", "text with an expression in it where"),
        (params(model=None), "params.model", "null where text is wanted"),
        (params(tool_choice="auto"), "params.tool_choice", "'auto' where an object is wanted"),
        (params(tool_choice={"type": "tool"}), "params.tool_choice.name", "required"),
        (params(tools=[{"name": "a"}]), "params.tools[0].input_schema", "required"),
        (params(tools=[{**TOOL, "descripton": "a"}]), "params.tools[0].descripton", "did you mean `description`?"),
        (params(thinking={"type": "enabled"}), "params.thinking.budget_tokens", "required"),
        (params(output_config={"effort": "lowish"}), "params.output_config.effort", "did you mean `low`?"),
        (params(stop_sequences="a"), "params.stop_sequences", "'a' where a list is wanted"),
        (params(metadata={"user": "a"}), "params.metadata.user", "did you mean `user_id`?"),
        (params(mcp_servers=[]), "params.mcp_servers", "name that beta in `betas`"),
    ],
)  # fmt: skip
def test_params_that_the_api_would_refuse_are_reported(
    tmp_path: Path, body: dict[str, Any], field: str, problem: str
) -> None:
    refused_field, text = refused(tmp_path, body)
    assert refused_field == field
    assert problem in text


@pytest.mark.parametrize(
    "body",
    [
        params(max_tokens="{{ n }}", model="{{ model }}", metadata="{{ m }}", stop_sequences="{{ s }}"),
        params(messages="{{ messages }}", tools="{{ tools }}", thinking="{{ t }}"),
        params(messages=["{{ shots }}", {"role": "{{ role }}", "content": ["{{ blocks }}"]}]),
        params(model="claude-of-next-year"),
        params(tools=[{**TOOL, "type": "custom"}], tool_choice={"type": "tool", "name": "note"}),
        params(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]),
        params(system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
        params(thinking={"type": "adaptive"}, output_config={"effort": "low"}, service_tier="auto"),
        params(cache_control=None),
        source(data="{{ b | base64 }}", media_type="image/{{ kind }}"),
        message([{"type": "{{ type }}", "text": "{{ text }}"}]),
        message([{"type": "document", "source": {"type": "url", "url": "{{ url }}"}, "title": None}]),
        message([{"type": "tool_use", "id": "a", "name": "note", "input": {"text": None}}], "assistant"),
    ],
)
def test_params_that_the_api_accepts_are_accepted(tmp_path: Path, body: dict[str, Any]) -> None:
    load(tmp_path, body)


@pytest.mark.parametrize("name", ["cache_hint", "context_hint", "thread", "fallbacks", "extra_body", "timeout",
                                  "betas", "workspace_id", "store", "anthropic_version"])  # fmt: skip
def test_fields_that_a_batch_refuses_are_refused_with_any_value(tmp_path: Path, name: str) -> None:
    for more in ({}, {"betas": ["some"]}, {"allow_unknown_params": True}):
        field, problem = refused(tmp_path, params(**{name: "{{ a }}"}), **more)
        assert (field, problem[:19]) == (f"params.{name}", "a batch refuses it:")


def test_beta_features_have_additional_fields_and_blocks(tmp_path: Path) -> None:
    server = {"type": "url", "name": "a", "url": "https://a.example"}
    load(tmp_path, params(mcp_servers=[server]), betas=["mcp-client-2025-11-20"])
    field, problem = refused(
        tmp_path, params(mcp_servers=[{**server, "nam": "b"}]), betas=["mcp-client-2025-11-20"]
    )
    assert (field, "`name`" in problem) == ("params.mcp_servers[0].nam", True)


def test_allow_unknown_params_accepts_only_what_the_sdk_does_not_know(tmp_path: Path) -> None:
    new: list[dict[str, Any]] = [
        params(brand_new=1),
        message([{"type": "hologram", "depth": 3}]),
        params(output_config={"effort": "divine"}),
    ]
    for body in new:
        assert "allow_unknown_params: true" in refused(tmp_path, body)[1]
        load(tmp_path, body, allow_unknown_params=True)
    assert refused(tmp_path, params(max_tokens="5"), allow_unknown_params=True)[0] == "params.max_tokens"
    missing = refused(tmp_path, message([{"type": "text"}]), allow_unknown_params=True)
    assert missing == (f"{CONTENT}[0].text", "this field is required here")


def test_a_typo_is_not_taken_for_a_new_field(tmp_path: Path) -> None:
    for body in (params(sytem="a"), message([{"type": "imgae", "source": {}}])):
        problem = refused(tmp_path, body)[1]
        assert ("did you mean" in problem, "newer than the installed SDK" in problem) == (True, False)


def test_each_api_version_refuses_its_own_fields(tmp_path: Path) -> None:
    quoting = message([{"type": "text", "text": "a", "citations": [{"type": "char_location"}]}])
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}
    answer = message([document], "assistant")
    assert refused(tmp_path, answer) == (
        f"{CONTENT}[0]", "the API refuses a document in an assistant message: put it into a user message"
    )  # fmt: skip
    load(tmp_path, answer, anthropic_version="2023-06-01")
    load(tmp_path, message([document]))
    citation = {"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": None,
                "start_char_index": 0, "end_char_index": 1}  # fmt: skip
    quoting["messages"][0]["content"][0]["citations"] = [citation]
    assert refused(tmp_path, quoting)[0] == f"{CONTENT}[0].citations"
    load(tmp_path, quoting, anthropic_version="2023-06-01")
    assert refused(tmp_path, params(max_tokens=-1))[0] == "params.max_tokens"
    for version in (None, "2026-10-21", "2027-01-01"):
        for model in ("claude-sonnet-4-6", "{{ model }}", "claude-of-next-year"):
            field, problem = refused(tmp_path, params(top_p=0.5, model=model), anthropic_version=version)
            assert (field, "anthropic_version: 2023-06-01" in problem) == ("params.top_p", True)
    load(tmp_path, params(top_p=0.5, model="claude-sonnet-4-6"), anthropic_version="2023-06-01")


@pytest.mark.parametrize("model", ["claude-haiku-5-5", "claude-opus-4-7", "claude-sonnet-5"])
def test_an_older_api_version_is_not_suggested_for_a_model_without_sampling(tmp_path: Path, model: str) -> None:
    for version in (None, "2023-06-01"):
        for body in ({"temperature": 0.5}, {"top_p": 0.9}, {"top_k": 5}):
            field, problem = refused(tmp_path, params(model=model, **body), anthropic_version=version)
            assert field == f"params.{next(iter(body))}"
            assert problem == f"{model} refuses it, under every version of the API: remove it"
    for body in ({"temperature": 1}, {"top_p": 1}, {"temperature": "{{ t }}"}):
        load(tmp_path, params(model=model, **body), anthropic_version="2023-06-01")


PREFILL = [{"role": "user", "content": "{{ a }}"}, {"role": "assistant", "content": "{"}]
PREFILL_IN_BLOCKS = [PREFILL[0], {"role": "assistant", "content": [{"type": "text", "text": "{{ a }}"}]}]
ENABLED = {"type": "enabled", "budget_tokens": 1024}
ANY = {"tools": [TOOL], "tool_choice": {"type": "any"}}
NOTE = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "note"}}


@pytest.mark.parametrize(
    ("body", "refusing_models", "accepting_models", "field"),
    [
        ({"messages": PREFILL}, ["claude-sonnet-4-6", "claude-haiku-5-5"],
         ["claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-opus-9", "{{ a }}"], "params.messages[1]"),
        ({"messages": PREFILL_IN_BLOCKS}, ["claude-opus-4-6"], ["claude-opus-4-5"], "params.messages[1]"),
        ({"thinking": ENABLED, "max_tokens": 2000}, ["claude-opus-4-7", "claude-fable-5-2"],
         ["claude-sonnet-4-6", "claude-opus-4-20250514"], "params.thinking.type"),
        ({"thinking": {"type": "disabled"}}, ["claude-sonnet-5-5"], ["claude-haiku-5-5", "claude-sonnet-5"],
         "params.thinking.type"),
        (ANY, ["claude-sonnet-5-5", "claude-opus-5-5"], ["claude-haiku-5-5"], "params.tool_choice.type"),
        (NOTE, ["claude-sonnet-5-5", "claude-opus-5-5"], ["claude-opus-5"], "params.tool_choice.type"),
    ],
)  # fmt: skip
def test_params_that_only_some_models_refuse(
    tmp_path: Path, body: dict[str, Any], refusing_models: list[str], accepting_models: list[str], field: str
) -> None:
    for model in refusing_models:
        refused_field, text = refused(tmp_path, params(**{**body, "model": model}))
        assert (refused_field, text.startswith(f"{model} refuses ")) == (field, True)
    for model in accepting_models:
        load(tmp_path, params(**{**body, "model": model}))


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        (params(messages=[]), "params.messages", "at least one message"),
        (params(tools=[TOOL], tool_choice={"type": "tool", "name": "nte"}), "params.tool_choice.name",
         "there is no tool 'nte'; the tools are note"),
        (params(tool_choice={"type": "tool", "name": "a"}), "params.tool_choice.name", "there are no tools"),
        (params(tool_choice={"type": "any"}), "params.tool_choice", "without tools"),
    ],
)  # fmt: skip
def test_params_that_every_model_refuses(tmp_path: Path, body: dict[str, Any], field: str, problem: str) -> None:
    refused_field, text = refused(tmp_path, body)
    assert (refused_field, problem in text) == (field, True)


def test_tool_choice_may_name_a_tool_that_only_a_row_gives(tmp_path: Path) -> None:
    choice = {"type": "tool", "name": "late"}
    for tools in ("{{ tools }}", [TOOL, "{{ more }}"], [{**TOOL, "name": "{{ name }}"}]):
        load(tmp_path, params(tools=tools, tool_choice=choice))
    turn = {"type": "tool_use", "id": "a", "name": "note", "input": {}}
    load(tmp_path, params(messages=[PREFILL[0], {"role": "assistant", "content": [turn]}]))


def test_examples_from_a_file_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "shots.yaml").write_text("- {role: user, content: a}\n- {role: asistant, content: b}\n")
    field, problem = refused(tmp_path, params(messages=["{{ load('shots.yaml') }}"]))
    assert (field, "did you mean `assistant`?" in problem) == ("params.messages[0][1].role (shots.yaml)", True)
    (tmp_path / "shots.yaml").write_text("- {role: user, content: true}\n")
    field, problem = refused(tmp_path, params(messages=["{{ load('shots.yaml') }}"]))
    assert (field, "put it in quotes" in problem) == ("params.messages[0][0].content (shots.yaml)", True)
    (tmp_path / "shots.yaml").write_text("- {role: user, content: [{type: text, text: }]}\n")
    for messages in (["{{ load('shots.yaml') }}"], "{{ load('shots.yaml') }}"):
        field, problem = refused(tmp_path, params(messages=messages))
        assert (field.endswith(".content[0].text (shots.yaml)"), "null" in problem) == (True, True)


_IN_A_NEW_PROCESS = """
import sys
from pathlib import Path
from batch_assets.core.pipeline.load import load_pipeline
from batch_assets.core.template.sdk_modules import sdk_module
from batch_assets.core.template.sdk_types import request_type

params = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "{{ a }}"}]}
load_pipeline({"name": "a", "dataset": {"path": "a.csv"}, "params": params}, folder=Path("."))
alone = [request_type(beta=beta) for beta in (False, True)]
print("anthropic" in sys.modules)
sys.modules["batch_assets.core.template.sdk_modules_only.lib.streaming._messages"] = None  # as if it needed more
print(sdk_module("lib.streaming._messages").__name__)
print("anthropic" in sys.modules)
whole = [request_type(beta=beta) for beta in (False, True)]
print(*[type_.__module__ for type_ in (*alone, *whole)])
print([sorted(type_.__annotations__) for type_ in alone] == [sorted(type_.__annotations__) for type_ in whole])
"""


def test_the_sdks_types_are_imported_without_the_sdk_unless_it_is_already_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _IN_A_NEW_PROCESS], capture_output=True, text=True, check=True)
    modules = ["types.message_create_params", "types.beta.message_create_params"]
    assert done.stdout.splitlines() == [
        "False",
        "anthropic.lib.streaming._messages",
        "True",
        " ".join(
            f"{sdk}.{name}"
            for sdk in ("batch_assets.core.template.sdk_modules_only", "anthropic")
            for name in modules
        ),
        "True",
    ]
