"""The models that the emulator knows, with the limits that decide whether a request is valid.

Identifiers, output limits and release dates follow the public model overview of November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OUTPUT_300K_BETA = "output-300k-2026-03-24"
"""The `anthropic-beta` value that allows `max_tokens` up to 300,000 in batches, on models that support it."""


@dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
        id: The identifier.
        display_name: The name for people.
        created: The release date, YYYY-MM-DD.
        max_tokens: The largest `max_tokens` of a request.
        max_input_tokens: The size of the context window in tokens.
        min_cache_tokens: The length of the shortest prompt prefix that is cached, in tokens.
        output_300k: Whether the model supports `OUTPUT_300K_BETA`.
        sampling: Whether `temperature`, `top_p` and `top_k` may be set under anthropic-version 2023-06-01.
        prefill: Whether the messages may end with text of the assistant.
    """

    id: str
    display_name: str
    created: str
    max_tokens: int = 128_000
    max_input_tokens: int = 1_000_000
    min_cache_tokens: int = 1024
    output_300k: bool = False
    sampling: bool = False
    prefill: bool = False

    @property
    def max_images(self) -> int:
        """The most images of a request: https://platform.claude.com/docs/en/build-with-claude/vision."""
        return 100 if self.max_input_tokens <= 200_000 else 600

    def wire(self) -> dict[str, Any]:
        """Make the JSON object that `GET /v1/models/{id}` returns."""
        yes = {"supported": True}
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "created_at": f"{self.created}T00:00:00Z",
            "lifecycle": "active",
            "deprecated_at": None,
            "retires_at": None,
            "line": self.id.split("-")[1],
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": {
                "batch": yes,
                "citations": yes,
                "code_execution": yes,
                "context_management": yes,
                "effort": yes,
                "image_input": yes,
                "pdf_input": yes,
                "server_tools": yes,
                "structured_outputs": yes,
                "thinking": yes,
            },
        }


def _old(id: str, name: str, created: str, cache: int) -> Model:
    return Model(id, name, created, 64_000, 200_000, cache, sampling=True, prefill=True)


_MODELS = [
    Model("claude-fable-5-2", "Claude Fable 5.2", "2026-11-09"),
    Model("claude-mythos-5-2", "Claude Mythos 5.2", "2026-11-09"),
    Model("claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-07", min_cache_tokens=512, output_300k=True),
    Model("claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-09-28", output_300k=True),
    Model("claude-opus-5-5", "Claude Opus 5.5", "2026-09-22", output_300k=True),
    Model("claude-fable-5-1", "Claude Fable 5.1", "2026-08-20"),
    Model("claude-mythos-5-1", "Claude Mythos 5.1", "2026-08-20"),
    Model("claude-opus-5", "Claude Opus 5", "2026-07-24", min_cache_tokens=512, output_300k=True),
    Model("claude-sonnet-5", "Claude Sonnet 5", "2026-06-30", output_300k=True),
    Model("claude-fable-5", "Claude Fable 5", "2026-06-09", min_cache_tokens=512),
    Model("claude-mythos-5", "Claude Mythos 5", "2026-06-09", min_cache_tokens=512),
    Model("claude-opus-4-8", "Claude Opus 4.8", "2026-05-28", output_300k=True),
    Model("claude-opus-4-7", "Claude Opus 4.7", "2026-04-16", min_cache_tokens=2048, output_300k=True),
    Model("claude-sonnet-4-6", "Claude Sonnet 4.6", "2026-02-17", output_300k=True, sampling=True),
    Model(
        "claude-opus-4-6",
        "Claude Opus 4.6",
        "2026-02-05",
        min_cache_tokens=4096,
        output_300k=True,
        sampling=True,
    ),
    _old("claude-opus-4-5-20251101", "Claude Opus 4.5", "2025-11-24", 4096),
    _old("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "2025-10-15", 4096),
    _old("claude-sonnet-4-5-20250929", "Claude Sonnet 4.5", "2025-09-29", 1024),
]

CATALOG: dict[str, Model] = {model.id: model for model in _MODELS}
"""The models by identifier, newest first."""

_ALIASES = {
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}

MODELS: dict[str, Model] = CATALOG | {alias: CATALOG[id] for alias, id in _ALIASES.items()}
"""Every accepted value of `model`, aliases included."""
