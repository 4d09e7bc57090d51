"""The prompt cache: who writes, who reads, for how long, and what is too short."""

from typing import Any

import anthropic
import orjson
import pytest

from batch_assets.emulator import Emulator

from .conftest import MODEL, params

HOUR: dict[str, Any] = {"type": "ephemeral", "ttl": "1h"}
MINUTES: dict[str, Any] = {"type": "ephemeral"}
LONG = 30_000  # characters: 10,000 tokens, and the least that this model caches is 4,096


def system(name: str, mark: dict[str, Any] | None, size: int = LONG) -> list[dict[str, Any]]:
    block = {"type": "text", "text": name.ljust(size, ".")}
    return [block | ({"cache_control": mark} if mark else {})]


def ask(client: anthropic.Anthropic, emulator: Emulator, *asked: Any) -> list[dict[str, Any]]:
    """Send one batch and return the usages of its answers, in the order of the requests."""
    created = client.messages.batches.create(
        requests=[{"custom_id": f"row-{at}", "params": one} for at, one in enumerate(asked)]
    )
    emulator.clock(advance=10)
    lines = [orjson.loads(line.model_dump_json()) for line in client.messages.batches.results(created.id)]
    by_id = {line["custom_id"]: line["result"] for line in lines}
    return [by_id[f"row-{at}"]["message"]["usage"] for at in range(len(asked))]


def split(usage: dict[str, Any]) -> tuple[int, int, int]:
    """The tokens that were written for five minutes, written for an hour, and read."""
    written = usage["cache_creation"]
    assert usage["cache_creation_input_tokens"] == sum(written.values())
    five, hour = written["ephemeral_5m_input_tokens"], written["ephemeral_1h_input_tokens"]
    return five, hour, usage["cache_read_input_tokens"]


def test_a_cold_batch_only_writes_and_the_next_one_reads(client: anthropic.Anthropic, emulator: Emulator) -> None:
    prompts = [params(f"Text {at}", system=system("cold", HOUR)) for at in range(3)]
    tokens = split(ask(client, emulator, prompts[0])[0])[1]
    assert tokens > 10_000
    cold = [params(f"Text {at}", system=system("cold two", HOUR)) for at in range(3)]
    assert [split(usage) for usage in ask(client, emulator, *cold)] == [(0, tokens, 0)] * 3
    warm = ask(client, emulator, *prompts)
    assert [split(usage) for usage in warm] == [(0, 0, tokens)] * 3
    assert {usage["input_tokens"] for usage in warm} == {2}


@pytest.mark.parametrize(("mark", "minutes"), [(MINUTES, 5), (HOUR, 60)])
def test_a_prefix_is_kept_until_its_ttl_after_the_last_use(
    client: anthropic.Anthropic, emulator: Emulator, mark: dict[str, Any], minutes: int
) -> None:
    prompt = params("x", system=system(f"kept {minutes}", mark))
    ask(client, emulator, prompt)
    for _ in range(2):  # reading keeps it
        emulator.clock(advance=minutes * 60 - 30)
        assert split(ask(client, emulator, prompt)[0])[2] > 10_000
    emulator.clock(advance=minutes * 60)
    assert split(ask(client, emulator, prompt)[0])[2] == 0


def test_what_is_too_short_or_not_processed_is_not_cached(client: anthropic.Anthropic, emulator: Emulator) -> None:
    short = params("x", system=system("short", HOUR, size=3 * 4_000))
    assert [split(ask(client, emulator, short)[0]) for _ in range(2)] == [(0, 0, 0)] * 2
    prompt = params("x", system=system("running", HOUR))
    emulator.settings(latency=60.0)
    emulator.clock(freeze=True)
    client.messages.batches.create(requests=[{"custom_id": "first", "params": prompt}])
    assert split(ask_while_running(client, emulator, prompt))[2] == 0


def ask_while_running(client: anthropic.Anthropic, emulator: Emulator, prompt: Any) -> dict[str, Any]:
    emulator.settings(latency=0.0)
    return ask(client, emulator, prompt)[0]


def test_the_cache_is_of_a_workspace_a_model_and_an_exact_prefix(emulator: Emulator) -> None:
    prompt = params("x", system=system("whose", HOUR))
    changed = params("x", system=system("whose?", HOUR))
    other = prompt | {"model": "claude-sonnet-4-5"}
    with (
        anthropic.Anthropic(api_key="key-north", base_url=emulator.url, max_retries=0) as north,
        anthropic.Anthropic(api_key="key-south", base_url=emulator.url, max_retries=0) as south,
    ):
        ask(north, emulator, prompt)
        assert [split(usage)[2] > 0 for usage in ask(north, emulator, prompt, changed, other)] == [
            True,
            False,
            False,
        ]
        assert split(ask(south, emulator, prompt)[0])[2] == 0


def test_a_text_and_a_list_of_one_block_are_the_same_prefix(
    client: anthropic.Anthropic, emulator: Emulator
) -> None:
    blocks = [
        {"type": "text", "text": "shared".ljust(LONG), "cache_control": HOUR},
        {"type": "text", "text": "own"},
    ]
    ask(client, emulator, params(system="S", messages=[{"role": "user", "content": blocks}]))
    other = [{"role": "user", "content": [*blocks[:1], {"type": "text", "text": "other"}]}]
    usage = ask(client, emulator, params(system=[{"type": "text", "text": "S"}], messages=other))[0]
    assert split(usage)[2] > 10_000


def test_what_is_written_after_a_read_costs_only_the_rest(client: anthropic.Anthropic, emulator: Emulator) -> None:
    first = split(ask(client, emulator, params("x", system=system("rest", HOUR)))[0])[1]
    question = [{"type": "text", "text": "q" * 3_000, "cache_control": MINUTES}]
    usage = ask(client, emulator, params(question, system=system("rest", HOUR)))[0]
    assert split(usage) == (1_000, 0, first)
    assert MODEL == "claude-haiku-4-5"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"system": [{"type": "text", "text": "x", "cache_control": MINUTES}] * 5}, "A maximum of 4 blocks"),
        ({"system": system("x", MINUTES), "cache_control": HOUR}, "must not come after a ttl='5m'"),
        ({"system": system("x", {"type": "ephemeral", "ttl": "2h"})}, "Input should be '5m' or '1h'"),
    ],
)
def test_marks_that_the_api_refuses(
    client: anthropic.Anthropic, emulator: Emulator, changes: dict[str, Any], text: str
) -> None:
    created = client.messages.batches.create(requests=[{"custom_id": "row", "params": params("x", **changes)}])
    emulator.clock(advance=10)
    [line] = client.messages.batches.results(created.id)
    assert text in line.result.error.error.message
