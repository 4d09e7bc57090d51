"""An emulator process shared by tests that can ignore the batches of others, and clients for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from batch_assets.emulator import Emulator

MODEL = "claude-haiku-4-5"
WORKSPACES = {"key-north": "north", "key-north-2": "north", "key-south": "south"}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    state: Path = tmp_path_factory.mktemp("emulator")
    with Emulator(state=state, workspaces=WORKSPACES) as running:
        yield running
        assert running.errors() == ""


@pytest.fixture
def emulator(shared: Emulator) -> Emulator:
    """The shared emulator, reset to its initial state except for the batches of earlier tests."""
    shared.reset_faults()
    shared.clock(reset=True)
    shared.settings(
        latency=0.0,
        cancel_delay=0.0,
        expiry=86400,
        moving_counters=False,
        max_body_bytes=256_000_000,
        max_requests=100_000,
        queue_limit=None,
    )
    return shared


@pytest.fixture
def client(emulator: Emulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="any-key", base_url=emulator.url, max_retries=0) as made:
        yield made


@pytest.fixture
def http(emulator: Emulator) -> Iterator[httpx2.Client]:
    """A plain HTTP client, for calls that the SDK does not allow and answers that it does not show."""
    headers = {"x-api-key": "any-key", "anthropic-version": "2023-06-01"}
    with httpx2.Client(base_url=emulator.url, headers=headers, timeout=60, trust_env=False) as made:
        yield made


def params(text: str = "Hello", **more: Any) -> Any:
    """Valid params, typed Any because tests also make them invalid."""
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": text}]} | more


def requests(count: int, **more: Any) -> list[Any]:
    """Make valid requests, each with its own text."""
    return [{"custom_id": f"row-{at}", "params": params(f"Text {at}", **more)} for at in range(count)]
