"""Answers of a server in place of emulated ones: a scripted server of each kind, asked over sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

from batch_assets.emulator import Emulator
from batch_assets.emulator.answer_source import endpoint_of
from tests.core.support import wait_for

from .conftest import params, requests
from .model_server import Answer, chat, serving, spoken

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}


@contextmanager
def client_of(emulator: Emulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="any-key", base_url=emulator.url, max_retries=0) as made:
        yield made


def ended(client: anthropic.Anthropic, batch_id: str) -> Any:
    def look() -> Any:
        batch = client.messages.batches.retrieve(batch_id)
        return batch if batch.processing_status == "ended" else None

    return wait_for(look, "the end of the batch")


def results_of(emulator: Emulator, asked: list[Any]) -> dict[str, Any]:
    """Send a batch, and return its results by custom_id once it has ended."""
    with client_of(emulator) as client:
        batch = client.messages.batches.create(requests=asked)
        ended(client, batch.id)
        return {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}


def one(emulator: Emulator, **more: Any) -> Any:
    """The result of a batch of one request."""
    return results_of(emulator, [{"custom_id": "a", "params": params(**more)}])["a"]


def test_chat_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is asked once, the answers go to their own requests, and usage and bill are the server's."""
    monkeypatch.setenv("BATCH_ASSETS_ANSWERS_KEY", "secret-key")
    together = threading.Barrier(3)

    def answer(body: Any) -> Answer:
        text = body["messages"][-1]["content"]
        if text in ("Text 0", "Text 1", "Text 2"):
            together.wait(60)
        return chat(f"Re: {text}")

    with serving(answer) as model:
        options = {"answers_from": model.url, "answers_model": "local", "answers_concurrency": 3}
        with Emulator(state=tmp_path, **options) as emulator:
            results = results_of(emulator, requests(20, system="Be brief.", stop_sequences=["END"]))
            bill = emulator.bill()
            assert emulator.errors() == ""
    assert {key: result.message.content[0].text for key, result in results.items()} == {
        f"row-{at}": f"Re: Text {at}" for at in range(20)
    }
    message = results["row-0"].message
    assert (message.model, message.stop_reason) == ("claude-haiku-4-5", "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens, usage.service_tier) == (11, 7, "batch")
    assert bill["picodollars"] == 20 * (11 * 10**6 + 7 * 5 * 10**6) // 2
    assert (bill["billed"], bill["served"]) == (20, 20)
    assert sorted(model.texts()) == sorted(f"Text {at}" for at in range(20))
    assert model.most == 3
    path, headers, body = model.calls[0]
    assert (path, headers["authorization"]) == ("/v1/chat/completions", "Bearer secret-key")
    assert body == {
        "model": "local",
        "messages": [{"role": "system", "content": "Be brief."}, body["messages"][1]],
        "max_tokens": 200,
        "stop": ["END"],
    }
    assert not any(b"secret-key" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_messages_api(emulator_of: Callable[..., Emulator]) -> None:
    """Params are sent as they are. Without a name of a model, that of the request is sent."""
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    with serving(lambda body: spoken('{"mood": "good"}', stop_reason="max_tokens")) as model:
        emulator = emulator_of(f"{model.url}/v1/messages")
        result = one(emulator, output_config=config)
        with client_of(emulator) as client:
            live = client.messages.create(**params("Live"))
        live_calls = emulator.live_calls()
    assert [block.text for block in result.message.content] == ['{"mood": "good"}']
    assert result.message.stop_reason == "max_tokens"
    assert (result.message.usage.input_tokens, result.message.usage.output_tokens) == (11, 7)
    path, headers, body = model.calls[0]
    assert (path, headers["anthropic-version"]) == ("/v1/messages", "2023-06-01")
    assert body == params(output_config=config)
    assert live.content[0].type == "text" and live.content[0].text == '{"mood": "good"}'
    assert model.texts() == ["Hello", "Live"]
    assert [call["picodollars"] for call in live_calls] == [11 * 10**6 + 7 * 5 * 10**6]


def test_what_the_chat_api_has_a_form_for(emulator_of: Callable[..., Emulator]) -> None:
    """Schema, tools and their results, images and texts as documents."""
    call = {"id": "call-2", "type": "function", "function": {"name": "note", "arguments": '{"mood": "good"}'}}
    with serving(lambda _: chat(None, tool_calls=[call])) as model:
        emulator = emulator_of(model.url)
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "Look:"}, image(), document("text", "Page")]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call-1", "name": "note", "input": {"mood": "bad"}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call-1", "content": "noted"},
                    {"type": "text", "text": "Again"},
                ],
            },
        ]
        tools = [{"name": "note", "description": "Notes it", "input_schema": SCHEMA}]
        config = {"format": {"type": "json_schema", "schema": SCHEMA}}
        choice = {"type": "tool", "name": "note"}
        result = one(emulator, messages=messages, tools=tools, tool_choice=choice, output_config=config)
    assert result.message.stop_reason == "tool_use"
    assert [block.to_dict() for block in result.message.content] == [
        {"type": "tool_use", "id": "call-2", "name": "note", "input": {"mood": "good"}}
    ]
    body = model.calls[0][2]
    function = {"name": "note", "description": "Notes it", "parameters": SCHEMA}
    form = {"name": "answer", "strict": True, "schema": SCHEMA}
    assert body["response_format"] == {"type": "json_schema", "json_schema": form}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "note"}}
    earlier = {"name": "note", "arguments": '{"mood":"bad"}'}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "text", "text": "Page"},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call-1", "type": "function", "function": earlier}],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": "noted"},
        {"role": "user", "content": "Again"},
    ]


def image() -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


def document(kind: str, data: str) -> dict[str, Any]:
    media_type = {"text": "text/plain", "base64": "application/pdf"}[kind]
    return {"type": "document", "source": {"type": kind, "media_type": media_type, "data": data}}


@pytest.fixture
def emulator_of(tmp_path: Path) -> Iterator[Callable[..., Emulator]]:
    """Starts an emulator with the answers of a server, and stops it after the test."""
    started: list[Emulator] = []

    def start(url: str, **options: Any) -> Emulator:
        emulator = Emulator(state=tmp_path / "state", answers_from=url, **options)
        emulator.start()
        started.append(emulator)
        return emulator

    yield start
    for emulator in started:
        assert emulator.errors() == ""
        emulator.stop()


PDF = "JVBERi0xLjQKMSAwIG9iago8PC9UeXBlL0NhdGFsb2c+PgplbmRvYmoKdHJhaWxlcgo8PC9Sb290IDEgMCBSPj4KJSVFT0YK"


def test_refusals(emulator_of: Callable[..., Emulator]) -> None:
    """What the server refuses is an error of the request, and not sent again.

    An invalid request, and what has no form in the chat API, does not reach the server at all.
    """

    def answer(body: Any) -> Answer:
        kinds = {
            "object": (404, {"error": {"message": "no model 'x'"}}),
            "text": (400, {"error": "too long"}),
            "plain": (400, b"go away"),
            "moved": (301, b""),
            "other": (200, {"hello": 1, "error": None}),
            "inside": (200, {"error": {"message": "model crashed"}}),
            "page": (200, b"<html>\n  <p>hi</p>"),
            "stream": (200, b'data: {"choices": []}\n\ndata: [DONE]\n\n'),
            "arguments": chat(None, tool_calls=[{"function": {"name": "note", "arguments": "mood"}}]),
            "cut": chat('{"mo', "length"),
        }
        return kinds[body["messages"][-1]["content"]]

    kinds = ("object", "text", "plain", "moved", "other", "inside", "page", "stream", "arguments", "cut")
    with serving(answer) as model:
        asked = [{"custom_id": kind, "params": params(kind)} for kind in kinds]
        pdf = [{"role": "user", "content": [document("base64", PDF)]}]
        asked.append({"custom_id": "pdf", "params": params(messages=pdf)})
        asked.append({"custom_id": "invalid", "params": params(model="claude-none")})
        search = [{"type": "web_search_20250305", "name": "web_search"}]
        asked.append({"custom_id": "search", "params": params(tools=search)})
        results = results_of(emulator_of(model.url), asked)
    assert len(model.calls) == len(kinds)
    assert results["cut"].message.stop_reason == "max_tokens"
    errors = {key: result.error.error for key, result in results.items() if result.type == "errored"}
    url = f"{model.url}/v1/chat/completions"
    assert '"name":"note","arguments":"mood"' in errors.pop("arguments").message
    assert {key: (error.type, error.message) for key, error in errors.items()} == {
        "object": ("invalid_request_error", f"{url} answered 404: no model 'x'"),
        "text": ("invalid_request_error", f"{url} answered 400: too long"),
        "plain": ("invalid_request_error", f"{url} answered 400: go away"),
        "moved": ("api_error", f"{url} answered 301 without JSON"),
        "other": ("api_error", f'{url} answered 200 in another form than its API: {{"hello":1,"error":null}}'),
        "inside": ("api_error", f"{url} answered 200 in another form than its API: model crashed"),
        "page": ("api_error", f"{url} answered 200 without JSON: <html> <p>hi</p>"),
        "stream": ("api_error", f'{url} answered 200 without JSON: data: {{"choices": []}} data: [DONE]'),
        "pdf": (
            "invalid_request_error",
            "messages.0.content.0: OpenAI's chat API, which answers here, has no form for a PDF. Send its pages "
            "as text or as images",
        ),
        "invalid": ("not_found_error", "model: claude-none"),
        "search": (
            "invalid_request_error",
            "tools.0: OpenAI's chat API, which answers here, has no form for the tool 'web_search_20250305'",
        ),
    }


def test_forms_of_answers_that_servers_differ_in(emulator_of: Callable[..., Emulator]) -> None:
    """Text in parts, no input of a tool, an input that is an object, and no reason for the end."""

    def called(arguments: Any) -> Answer:
        return chat(None, None, tool_calls=[{"function": {"name": "note", "arguments": arguments}}])  # type: ignore[arg-type]

    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Fi"}, {"type": "text", "text": "ne."}]
    answers = {
        "parts": chat(parts),
        "empty": called(""),
        "null": called(None),
        "object": called({"mood": "good"}),
        "json": called('{"mood": "bad"}'),
    }
    with serving(lambda body: answers[body["messages"][-1]["content"]]) as model:
        asked = [{"custom_id": kind, "params": params(kind)} for kind in answers]
        results = results_of(emulator_of(model.url), asked)
    messages = {key: result.message for key, result in results.items()}
    assert [block.text for block in messages.pop("parts").content] == ["Fine."]
    assert {key: message.content[0].input for key, message in messages.items()} == {
        "empty": {},
        "null": {},
        "object": {"mood": "good"},
        "json": {"mood": "bad"},
    }
    assert {message.stop_reason for message in messages.values()} == {"tool_use"}
    with serving(lambda _: spoken(stop_reason=None)) as model:
        assert one(emulator_of(f"{model.url}/v1/messages")).message.stop_reason == "end_turn"


def test_a_request_that_a_fault_affects_is_not_asked(emulator_of: Callable[..., Emulator]) -> None:
    action = {"error_mix": {"overloaded_error": 0.5, "expired": 0.5}}
    with serving(lambda _: chat()) as model:
        emulator = emulator_of(model.url, faults=[{"match": {"method": "POST"}, "action": action}])
        results = results_of(emulator, requests(20))
    assert {result.type for result in results.values()} == {"errored", "expired"}
    assert model.calls == []


def test_a_problem_of_the_server_passes(emulator_of: Callable[..., Emulator]) -> None:
    """A request is sent again after 503, 429 and a broken connection."""
    problems: list[Answer] = [(503, b"loading"), (429, b"busy"), (0, b"")]
    with serving(lambda _: problems.pop(0) if problems else chat()) as model:
        result = one(emulator_of(model.url))
    assert result.message.content[0].text == "Fine."
    assert len(model.calls) == 4


def test_a_server_that_stays_away(emulator_of: Callable[..., Emulator]) -> None:
    """The batch ends with errors that name the server, and the next requests do not wait for it again."""
    with serving(lambda _: (500, {"error": {"message": "out of memory"}})) as model:
        emulator = emulator_of(model.url, answers_patience=0.5, answers_concurrency=1)
        failed = results_of(emulator, requests(10))
    assert {(result.error.error.type, result.error.error.message) for result in failed.values()} == {
        ("api_error", f"{model.url}/v1/chat/completions answered 500: out of memory")
    }
    assert len(model.calls) == 11  # the first is sent twice, and then none waits
    away = results_of(emulator, requests(3))
    assert {result.error.error.type for result in away.values()} == {"api_error"}
    assert all("cannot be called" in result.error.error.message for result in away.values())


@pytest.mark.parametrize("stop", ["kill", "stop"])
def test_a_restart_goes_on_with_those_missing(stop: str, emulator_of: Callable[..., Emulator]) -> None:
    """No stored answer is asked for again. Counts show what is answered; the last answer ends the batch."""
    room, is_held = threading.Semaphore(4), threading.Event()

    def answer(body: Any) -> Answer:
        if not is_held.is_set():
            room.acquire()
        return chat(body["messages"][-1]["content"])

    with serving(answer) as model:
        emulator = emulator_of(model.url, answers_concurrency=1)
        with client_of(emulator) as client:
            batch = client.messages.batches.create(requests=requests(6))
            assert batch.request_counts.processing == 6

            def counts() -> tuple[str, int, int]:
                seen = client.messages.batches.retrieve(batch.id)
                return seen.processing_status, seen.request_counts.processing, seen.request_counts.succeeded

            wait_for(lambda: counts() == ("in_progress", 2, 4), "four answers")
            wait_for(lambda: len(model.calls) == 5, "the fifth call")
            emulator.end_batches()
            assert counts() == ("in_progress", 2, 4)
            getattr(emulator, stop)()
            is_held.set()
            room.release()
            emulator.start()
            assert ended(client, batch.id).request_counts.succeeded == 6
            lines = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert {key: result.message.content[0].text for key, result in lines.items()} == {  # type: ignore[union-attr]
        f"row-{at}": f"Text {at}" for at in range(6)
    }
    assert model.texts() == ["Text 0", "Text 1", "Text 2", "Text 3", "Text 4", "Text 4", "Text 5"]


@pytest.mark.parametrize("kind", ["canceled", "expired"])
def test_a_batch_that_is_stopped_is_not_asked_about(kind: str, emulator_of: Callable[..., Emulator]) -> None:
    """What is answered by then is kept. The next batch is answered."""
    room = threading.Semaphore(2)

    def answer(_: Any) -> Answer:
        room.acquire()
        return chat()

    with serving(answer) as model:
        emulator = emulator_of(model.url, answers_concurrency=1)
        with client_of(emulator) as client:
            batch = client.messages.batches.create(requests=requests(6))
            wait_for(
                lambda: client.messages.batches.retrieve(batch.id).request_counts.succeeded == 2, "two answers"
            )
            wait_for(lambda: len(model.calls) == 3, "the third call")
            if kind == "canceled":
                client.messages.batches.cancel(batch.id)
            else:
                emulator.clock(advance=86_400)
            counts = ended(client, batch.id).request_counts.model_dump()
            assert counts == {"processing": 0, "errored": 0, "canceled": 0, "expired": 0, "succeeded": 2} | {
                kind: 4
            }
            room.release(10)
            later = client.messages.batches.create(requests=requests(1))
            ended(client, later.id)
            types = sorted(line.result.type for line in client.messages.batches.results(batch.id))
        bill = emulator.bill()
    assert types == sorted([kind] * 4 + ["succeeded"] * 2)
    assert bill["billed"] == 3
    assert len(model.calls) == 4


def test_the_latency_is_the_least(emulator_of: Callable[..., Emulator]) -> None:
    with serving(lambda _: chat()) as model:
        emulator = emulator_of(model.url, latency=1000)
        with client_of(emulator) as client:
            batch = client.messages.batches.create(requests=requests(2))
            wait_for(lambda: client.messages.batches.retrieve(batch.id).request_counts.succeeded == 2, "answers")
            assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
            emulator.clock(advance=1000)
            assert client.messages.batches.retrieve(batch.id).processing_status == "ended"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434/v1/chat/completions"),
        ("http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434/v1/chat/completions"),
        ("https://host/llm", "https://host/llm/v1/chat/completions"),
        ("http://host:1/v1/messages", "http://host:1/v1/messages"),
        ("http://host/openai/chat/completions", "http://host/openai/chat/completions"),
    ],
)
def test_the_url_decides_the_api(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    "url",
    ["localhost:11434", "ftp://u:secret@host", "http://:secret@host", "http://h/?key=secret", "http://h:99999"],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        endpoint_of(url)
    assert "secret" not in str(caught.value)
