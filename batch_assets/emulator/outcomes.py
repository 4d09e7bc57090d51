"""The outcome of each request of a batch: one code per request, decided when the batch is created.

The code depends on whether the params are valid, and on an optional error mix: shares of requests that do not
succeed. They are chosen by a hash of the custom_id, so that the same custom_id has the same outcome in every run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from batch_assets.emulator.params import Refusal, check_params

SUCCEEDED, INVALID, EXPIRED, CANCELED, REFUSAL, MAX_TOKENS, PAUSED, MALFORMED, CALLING = range(9)
"""The outcome codes.

In order: answered, refused by validation, expired, canceled, answered with a refusal of the model, answered but
cut off by max_tokens, paused before the end of the turn, answered with something else than the schema wants,
answered with calls of the request's tools. The codes from `FIRST_ERROR` on are the errors in `MIX_ERRORS`, in
order.
"""
FIRST_ERROR = 16

MIX_ERRORS = (
    Refusal("api_error", "Internal server error"),
    Refusal("overloaded_error", "Overloaded"),
    Refusal("timeout_error", "Request timed out"),
    Refusal("rate_limit_error", "This request would exceed your rate limit"),
    Refusal("invalid_request_error", "Unable to download the file. Please verify the URL and try again."),
    Refusal("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    Refusal("permission_error", "Your API key does not have permission to use the specified resource."),
    Refusal("billing_error", "There is an issue with your billing or payment information."),
)
"""The errors that an error mix can contain.

They are named by `error.type`. The two invalid_request_errors, which depend on circumstances and not on the
request, are named `download_error` and `credit_error`.
"""

MIX_KINDS = {
    "expired": EXPIRED,
    "canceled": CANCELED,
    "refusal": REFUSAL,
    "max_tokens": MAX_TOKENS,
    "pause_turn": PAUSED,
    "malformed": MALFORMED,
    "tool_use": CALLING,
    "api_error": FIRST_ERROR,
    "overloaded_error": FIRST_ERROR + 1,
    "timeout_error": FIRST_ERROR + 2,
    "rate_limit_error": FIRST_ERROR + 3,
    "download_error": FIRST_ERROR + 4,
    "credit_error": FIRST_ERROR + 5,
    "permission_error": FIRST_ERROR + 6,
    "billing_error": FIRST_ERROR + 7,
}
"""The outcome codes by their names in an error mix. `_error` at the end may be left out."""
_SUFFIX = "_error"

RESULT_TYPES = ("succeeded", "errored", "canceled", "expired")


def kind_named(name: str) -> str | None:
    """Return the full name of a kind in an error mix; `None` if there is none of that name."""
    return next((kind for kind in (name, f"{name}{_SUFFIX}") if kind in MIX_KINDS), None)


def known_kinds() -> str:
    """Return the kinds of an error mix, as short as they can be written."""
    return ", ".join(kind.removesuffix(_SUFFIX) for kind in MIX_KINDS)


def result_type(code: int) -> str:
    """Return the `result.type` of a processed request with this outcome code."""
    if code in (SUCCEEDED, REFUSAL, MAX_TOKENS, PAUSED, MALFORMED, CALLING):
        return "succeeded"
    return {EXPIRED: "expired", CANCELED: "canceled"}.get(code, "errored")


def count_results(codes: bytes) -> dict[str, int]:
    """Count the requests with these outcome codes by their result types."""
    counts = dict.fromkeys(RESULT_TYPES, 0)
    for code in set(codes):
        counts[result_type(code)] += codes.count(code)
    return counts


def _fraction(text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Mix:
    """An error mix: `{"overloaded_error": 0.1, "expired": 0.05, …, "first": K, "salt": "…"}`.

    Shares are fractions of the requests. With `first`, only the first K submissions of the same params are
    affected, so that a later retry succeeds. Another `salt` chooses other requests.

    Raises:
        ValueError: When a name is unknown, a share is wrong, or the shares sum to more than 1.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        if not isinstance(spec, Mapping):
            raise ValueError(f'error_mix is {spec!r}: give shares by kind, as in {{"overloaded": 0.1}}')
        self._first: int | None = spec.get("first")
        self._salt = str(spec.get("salt", ""))
        self._bounds: list[tuple[float, int]] = []
        total = 0.0
        for name, share in spec.items():
            if name in ("first", "salt"):
                continue
            kind = kind_named(name)
            if kind is None:
                raise ValueError(f"unknown kind in error_mix: {name}; known: {known_kinds()}")
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"the share of {name} in error_mix is {share!r}: give a number from 0 to 1")
            total += share
            self._bounds.append((total, MIX_KINDS[kind]))
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of error_mix sum to {total}, which is more than 1")

    def pick(self, custom_id: str) -> int:
        """Return the outcome code for a custom_id; `SUCCEEDED` if the mix does not affect it."""
        fraction = _fraction(self._salt + custom_id)
        return next((code for bound, code in self._bounds if fraction < bound), SUCCEEDED)

    def applies(self, submissions: int) -> bool:
        """Whether the mix still affects params that were submitted `submissions` times before."""
        return self._first is None or submissions < self._first


class Judge:
    """Decides the outcome codes of the requests of one create call. `commit` once the batch is accepted.

    Args:
        version: The `anthropic-version` header.
        betas: The values of the `anthropic-beta` header.
        mix: The error mix; `None` for none.
        submissions: How often params were submitted under an error mix, by their digest.
    """

    def __init__(self, version: str, betas: Collection[str], mix: Mix | None, submissions: Counter[bytes]) -> None:
        self._version, self._betas, self._mix = version, betas, mix
        self._submissions = submissions
        self._submitted: set[bytes] = set()

    def __call__(self, custom_id: str, params: dict[str, Any]) -> int:
        if check_params(params, version=self._version, betas=self._betas) is not None:
            return INVALID
        if self._mix is None:
            return SUCCEEDED
        code = self._mix.pick(custom_id)
        if code == SUCCEEDED:
            return SUCCEEDED
        digest = hashlib.blake2b(orjson.dumps(params, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
        self._submitted.add(digest)
        return code if self._mix.applies(self._submissions[digest]) else SUCCEEDED

    def commit(self) -> None:
        """Count this call as a submission of its params."""
        self._submissions.update(self._submitted)
