"""Everything the official SDK can do with batches, messages and models works against the emulator."""

import asyncio
from collections.abc import Iterator

import anthropic
import pytest

from batch_assets.emulator import Emulator, emulated_answer, text_digest

from .conftest import MODEL, params, requests


def test_create_retrieve_and_results(client: anthropic.Anthropic) -> None:
    sent = requests(5)
    batch = client.messages.batches.create(requests=sent)
    assert batch.processing_status == "in_progress"
    assert batch.request_counts.processing == 5
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 5)
    assert ended.ended_at is not None and ended.results_url is not None
    answers = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert answers.keys() == {request["custom_id"] for request in sent}
    for request in sent:
        result = answers[request["custom_id"]]
        assert result.type == "succeeded"
        expected = emulated_answer(request["params"])
        assert [block.model_dump(exclude_none=True) for block in result.message.content] == expected["content"]
        assert result.message.stop_reason == expected["stop_reason"]
        assert result.message.usage.output_tokens == expected["usage"]["output_tokens"]
        assert result.message.usage.service_tier == "batch"
        question = request["params"]["messages"][0]["content"]
        text = expected["content"][0]["text"]
        assert question in text and text_digest(question) in text


def test_cancel_and_delete(client: anthropic.Anthropic, emulator: Emulator) -> None:
    emulator.settings(latency=1000)
    batch = client.messages.batches.create(requests=requests(2))
    with pytest.raises(anthropic.BadRequestError, match="In progress batches cannot be deleted"):
        client.messages.batches.delete(batch.id)
    canceled = client.messages.batches.cancel(batch.id)
    assert canceled.processing_status == "canceling" and canceled.cancel_initiated_at is not None
    assert client.messages.batches.retrieve(batch.id).request_counts.canceled == 2
    assert {line.result.type for line in client.messages.batches.results(batch.id)} == {"canceled"}
    assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError, match="not found"):
        client.messages.batches.retrieve(batch.id)


@pytest.fixture(scope="module")
def seven() -> Iterator[tuple[Emulator, list[str]]]:
    """A separate emulator with seven batches, and their ids, newest first."""
    with Emulator() as own, anthropic.Anthropic(api_key="k", base_url=own.url) as client:
        ids = [client.messages.batches.create(requests=requests(1)).id for _ in range(7)]
        yield own, ids[::-1]


def test_list_pages_both_ways(seven: tuple[Emulator, list[str]]) -> None:
    own, ids = seven
    with anthropic.Anthropic(api_key="k", base_url=own.url) as client:
        batches = client.messages.batches
        assert [batch.id for batch in batches.list()] == ids
        assert [batch.id for batch in batches.list(limit=3)] == ids
        first = batches.list(limit=3)
        assert (first.has_more, first.first_id, first.last_id) == (True, ids[0], ids[2])
        assert [batch.id for batch in batches.list(limit=2, after_id=ids[4])] == ids[5:]
        before = batches.list(limit=2, before_id=ids[5])
        assert [batch.id for batch in before.data] == ids[3:5] and before.has_more
        assert {batch.id for batch in batches.list(limit=2, before_id=ids[5])} == set(ids[:5])
        newest = batches.list(limit=2, before_id=ids[2])
        assert [batch.id for batch in newest.data] == ids[:2] and not newest.has_more
        assert own.requests()["GET /v1/messages/batches"] >= 3


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1001}, {"after_id": "msgbatch_unknown"}, {"before_id": "msgbatch_unknown"}],
)
def test_list_refuses_bad_queries(client: anthropic.Anthropic, query: dict[str, object]) -> None:
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.list(**query)  # type: ignore[arg-type]


def test_raw_and_streaming_responses(client: anthropic.Anthropic) -> None:
    raw = client.messages.batches.with_raw_response.create(requests=requests(3))
    assert raw.headers["anthropic-organization-id"] == "emulator"
    batch = raw.parse()
    with client.messages.batches.with_streaming_response.results(batch.id) as response:
        body = b"".join(response.iter_bytes())
    assert body.count(b"\n") == 3 and body.endswith(b"\n")


def test_beta_namespace(client: anthropic.Anthropic, emulator: Emulator) -> None:
    beta = client.beta.messages.batches
    big = requests(1)
    big[0]["params"] |= {"model": "claude-opus-5", "max_tokens": 300_000}
    refused = beta.create(requests=big)
    lifted = beta.create(requests=big, betas=["output-300k-2026-03-24"])
    assert beta.retrieve(refused.id).request_counts.errored == 1
    assert beta.retrieve(lifted.id).request_counts.succeeded == 1
    assert [line.result.type for line in beta.results(lifted.id)] == ["succeeded"]
    assert beta.list(limit=1).data[0].id == lifted.id
    assert beta.delete(lifted.id).id == lifted.id
    emulator.settings(latency=1000)
    assert beta.cancel(beta.create(requests=big).id).processing_status == "canceling"


def test_async_client(emulator: Emulator) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=emulator.url) as client:
            batch = await client.messages.batches.create(requests=requests(4))
            assert (await client.messages.batches.retrieve(batch.id)).processing_status == "ended"
            lines = [line async for line in await client.messages.batches.results(batch.id)]
            assert {line.custom_id for line in lines} == {f"row-{at}" for at in range(4)}
            ids = [listed.id async for listed in client.messages.batches.list(limit=2)]
            assert ids[0] == batch.id
            deleted = await client.messages.batches.delete(batch.id)
            assert deleted.id == batch.id
            message = await client.messages.create(**params("Async"))
            assert message.content[0].type == "text"

    asyncio.run(run())


def test_messages_tokens_and_models(client: anthropic.Anthropic) -> None:
    request = params("How are you?")
    message = client.messages.create(**request)
    assert message.usage.service_tier == "standard"
    expected = emulated_answer(request)
    assert message.content[0].model_dump(exclude_none=True) == expected["content"][0]
    counted = client.messages.count_tokens(model=MODEL, messages=request["messages"])
    assert counted.input_tokens == message.usage.input_tokens > 0
    models = list(client.models.list(limit=4))
    assert len({model.id for model in models}) == len(models) > 10
    assert client.models.retrieve(MODEL).id == "claude-haiku-4-5-20251001"
    with pytest.raises(anthropic.NotFoundError, match="model: claude-none"):
        client.models.retrieve("claude-none")
    with pytest.raises(anthropic.NotFoundError, match="model: claude-none"):
        client.messages.create(**params(model="claude-none"))


def test_streamed_messages(client: anthropic.Anthropic) -> None:
    request = params("Stream this")
    with client.messages.stream(**request) as stream:
        assert "".join(stream.text_stream) == emulated_answer(request)["content"][0]["text"]
    tool = {"name": "note", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    forced = params("x", tools=[tool], tool_choice={"type": "tool", "name": "note"})
    with client.messages.stream(**forced) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert final.content[0].type == "tool_use"
    assert final.content[0].input == emulated_answer(forced)["content"][0]["input"]


def test_max_tokens_zero_is_valid_outside_of_batches(client: anthropic.Anthropic) -> None:
    assert client.messages.create(**params(max_tokens=0)).content == []
