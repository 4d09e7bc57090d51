"""What becomes of each request of a batch: one code per request, decided when the batch is created.

Codes depend on the validity of the params and on an optional error mix: shares of requests that are
to end in another way than `succeeded`, chosen by a hash of the custom_id, so that the same
custom_id meets the same fate in every run.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from .params import Refusal, check_params

SUCCEEDED, INVALID, EXPIRED, CANCELED, REFUSAL, MAX_TOKENS = range(6)
"""Codes: answered, refused by validation, made to expire, made to be canceled, answered by a refusal,
answered but cut off by max_tokens. Codes from FIRST_ERROR on are the errors of `MIX_ERRORS`, in order."""
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
"""Errors an error mix can name: by `error.type`, or `download_error` and `credit_error` for the two
invalid_request_errors that depend on circumstances and not on the request."""

MIX_KINDS = {
    "expired": EXPIRED,
    "canceled": CANCELED,
    "refusal": REFUSAL,
    "max_tokens": MAX_TOKENS,
    "api_error": FIRST_ERROR,
    "overloaded_error": FIRST_ERROR + 1,
    "timeout_error": FIRST_ERROR + 2,
    "rate_limit_error": FIRST_ERROR + 3,
    "download_error": FIRST_ERROR + 4,
    "credit_error": FIRST_ERROR + 5,
    "permission_error": FIRST_ERROR + 6,
    "billing_error": FIRST_ERROR + 7,
}
"""Names usable in an error mix."""

RESULT_TYPES = ("succeeded", "errored", "canceled", "expired")


def result_type(code: int) -> str:
    """The `result.type` an outcome code leads to when the request is processed."""
    if code in (SUCCEEDED, REFUSAL, MAX_TOKENS):
        return "succeeded"
    return {EXPIRED: "expired", CANCELED: "canceled"}.get(code, "errored")


def count_results(codes: bytes) -> dict[str, int]:
    """How many of the requests with these codes lead to each result type."""
    counts = dict.fromkeys(RESULT_TYPES, 0)
    for code in set(codes):
        counts[result_type(code)] += codes.count(code)
    return counts


def _fraction(text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Mix:
    """An error mix: `{"overloaded_error": 0.1, "expired": 0.05, …, "first": K, "salt": "…"}`.

    Shares are fractions of the requests. With `first`, only the first K submissions of the same params
    are affected, so that a retry succeeds. Raises ValueError for an unknown name or a share sum above 1.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._first: int | None = spec.get("first")
        self._salt = str(spec.get("salt", ""))
        self._bounds: list[tuple[float, int]] = []
        total = 0.0
        for name, share in spec.items():
            if name in ("first", "salt"):
                continue
            if name not in MIX_KINDS:
                raise ValueError(f"unknown kind in error_mix: {name}; known: {', '.join(MIX_KINDS)}")
            total += float(share)
            self._bounds.append((total, MIX_KINDS[name]))
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of error_mix sum to {total}, more than 1")

    def pick(self, custom_id: str) -> int:
        """The outcome the mix has for a custom_id, SUCCEEDED for most."""
        fraction = _fraction(self._salt + custom_id)
        return next((code for bound, code in self._bounds if fraction < bound), SUCCEEDED)

    def applies(self, submissions: int) -> bool:
        """Whether params that were submitted that many times before are still affected."""
        return self._first is None or submissions < self._first


class Judge:
    """Gives each request of one create call its outcome code; `commit` once the batch is accepted."""

    def __init__(
        self, version: str, betas: Collection[str], mix: Mix | None, submissions: "Counter[bytes]"
    ) -> None:
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
