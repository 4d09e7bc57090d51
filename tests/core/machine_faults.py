"""Faults of the API for the state machine: rules for the emulator, by name."""

from __future__ import annotations

from typing import Any

from .support import BATCHES, CREATE, LIST

_LASTING = {"x-should-retry": "false"}  # otherwise the SDK would retry automatically, after a second
_CREDIT = {
    "type": "error",
    "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"},
}
FAULTS: dict[str, dict[str, Any]] = {
    "the reply is lost": {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}},
    "two replies are lost": {"match": {**CREATE, "times": 2}, "action": {"drop": "after_commit"}},
    "nothing arrives": {"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}},
    "an error instead of acceptance": {"match": {**CREATE, "times": 1}, "action": {"status": 500}},
    "too many requests": {
        "match": {**CREATE, "times": 1},
        "action": {"status": 429, "headers": {"retry-after": "40"}},
    },
    "no credit": {"match": {**CREATE, "times": 1}, "action": {"status": 400, "body": _CREDIT}},
    "refused": {"match": {**CREATE, "times": 1}, "action": {"status": 400}},
    "no list": {"match": {**LIST, "times": 2}, "action": {"status": 500, "headers": _LASTING}},
    "no look": {
        "match": {"method": "GET", "path": f"{BATCHES}/*", "times": 2},
        "action": {"status": 500, "headers": _LASTING},
    },
    "fresh batches are unknown": {
        "match": {"method": "GET", "path": f"{BATCHES}/*"},
        "action": {"not_found_for": 100},
    },
    "hidden for a while": {"match": LIST, "action": {"hide_from_list": 600}},
    "hidden for long": {"match": LIST, "action": {"hide_from_list": 3000}},
    "some fail": {
        "match": {**CREATE, "times": 2},
        "action": {"error_mix": {"overloaded_error": 0.3, "expired": 0.3}},
    },
    "all fail": {"match": {**CREATE, "times": 1}, "action": {"error_mix": {"api_error": 1.0}}},
    "some fail for good": {"match": {**CREATE, "times": 1}, "action": {"error_mix": {"download_error": 0.4}}},
}
SPOILED: dict[str, dict[str, Any]] = {
    "cut": {"truncate": {"fraction": 0.6}, "ending": "reset"},
    "cut at a line end": {"truncate": {"lines": 1}, "ending": "clean"},
    "twice": {"lines": {"duplicate": 1}},
    "missing": {"lines": {"missing": 1}},
    "garbage": {"lines": {"garbage": 1}},
    "foreign": {"lines": {"foreign": 1}},
}
