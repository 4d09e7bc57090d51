"""Faults that a test can order: rules that match calls and define what goes wrong.

A rule is `{"match": {...}, "action": {...}}`. `match` may have `method` and `path` (a glob, compared without the
query), and fields that select among the matching calls: `after` (skip this many), `nth` (a number from 1, or a
list of numbers, counted after the skipped calls), `times` (stop after this many hits). Without these fields every
matching call is hit. If several rules hit one call, their actions are combined. If they have the same action, the
earlier rule wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from batch_assets.emulator.outcomes import Mix
from batch_assets.emulator.results import ALTERATIONS
from batch_assets.emulator.wire import ERROR_CODES

ACTIONS = {
    "delay": "seconds to wait before the call is processed",
    "status": "answer with this HTTP status instead",
    "body": "body of that answer: JSON, or a string sent unchanged; an API error of that status by default",
    "error_code": "error.details.error_code of that answer; by default it has the status of the code",
    "headers": "headers added to the answer",
    "early": "true: give that answer without reading the request body",
    "late": "true: carry the call out, and give that answer all the same, as a gateway that retries does",
    "drop": "close the connection: before_body, before_commit (body read) or after_commit (reply lost)",
    "reset": "true: drop with a TCP reset instead of a close",
    "truncate": "cut the results: {fraction | bytes | lines, at_line_end: true}",
    "ending": "how truncated results end: abort, reset, content_length, clean or chunked",
    "lines": "corrupt result lines: {missing, duplicate, foreign, unknown_type, garbage, broken: count}",
    "results_url": "the results_url to show, in which {id} is replaced",
    "hide_from_list": "seconds after creation during which a batch is missing from lists",
    "not_found_for": "seconds after creation during which the answer for a batch is 404",
    "error_mix": "on create: shares of requests that do not succeed, by kind, as in --errors; see `outcomes.Mix`",
}
"""Every action by name, with the meaning of its value."""

MAX_RULES = 10_000
"""The largest number of rules at a time."""
_MATCHES = frozenset({"method", "path", "after", "nth", "times"})
_DROPS = ("before_body", "before_commit", "after_commit")
ENDINGS = ("abort", "reset", "content_length", "clean", "chunked")
"""How a truncated result stream ends.

`abort` closes the connection in mid-chunk, `reset` with a TCP reset, `content_length` before the announced length.
`clean` (no announced length) and `chunked` (with a proper last chunk) look complete to the client.
"""


@dataclass
class Rule:
    """One fault with its counts.

    Attributes:
        match: Which calls it affects; see the module.
        action: What goes wrong; see `ACTIONS`.
        seen: The number of matching calls so far.
        hits: The number of affected calls so far.

    Raises:
        ValueError: When the rule has an unknown field or value.
    """

    match: Mapping[str, Any]
    action: Mapping[str, Any]
    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _check(self.match, self.action)
        if "error_code" in self.action:
            self.action = {"status": ERROR_CODES[self.action["error_code"]][0], **self.action}

    def take(self, method: str, path: str) -> bool:
        """Count a call, and return whether the rule affects it."""
        if self.match.get("method", method) != method or not fnmatchcase(path, self.match.get("path", "*")):
            return False
        self.seen += 1
        nth = self.match.get("nth")
        chosen = self.seen > self.match.get("after", 0)
        if nth is not None:
            chosen = chosen and self.seen - self.match.get("after", 0) in (nth if isinstance(nth, list) else [nth])
        if chosen and self.hits < self.match.get("times", float("inf")):
            self.hits += 1
            return True
        return False

    def shown(self) -> dict[str, Any]:
        """Return the rule with its counts, as the control endpoint shows it."""
        return {"match": self.match, "action": self.action, "seen": self.seen, "hits": self.hits}


def _check(match: Mapping[str, Any], action: Mapping[str, Any]) -> None:
    if unknown := match.keys() - _MATCHES:
        raise ValueError(f"unknown field in match: {', '.join(sorted(unknown))}")
    if unknown := action.keys() - ACTIONS.keys():
        raise ValueError(f"unknown field in action: {', '.join(sorted(unknown))}; known: {', '.join(ACTIONS)}")
    if action.get("drop", _DROPS[0]) not in _DROPS:
        raise ValueError(f"drop must be one of {', '.join(_DROPS)}")
    if "error_code" in action and action["error_code"] not in ERROR_CODES:
        raise ValueError(f"error_code must be one of {', '.join(ERROR_CODES)}")
    if action.get("ending", ENDINGS[0]) not in ENDINGS:
        raise ValueError(f"ending must be one of {', '.join(ENDINGS)}")
    if unknown := set(action.get("lines", ())) - set(ALTERATIONS):
        raise ValueError(f"unknown field in lines: {', '.join(sorted(unknown))}")
    if unknown := set(action.get("truncate", ())) - {"fraction", "bytes", "lines", "at_line_end"}:
        raise ValueError(f"unknown field in truncate: {', '.join(sorted(unknown))}")
    if "error_mix" in action:
        Mix(action["error_mix"])


class Faults:
    """The active rules, in order."""

    def __init__(self, rules: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rules: list[Rule] = []
        self.add(rules)

    def add(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Add rules after the existing ones. If one of them is invalid, none is added.

        Raises:
            ValueError: When a rule has an unknown field or value.
        """
        new = []
        for rule in rules:
            if not isinstance(rule, Mapping) or set(rule) - {"match", "action"}:
                raise ValueError('a rule is {"match": {...}, "action": {...}}')
            new.append(Rule(rule.get("match", {}), rule.get("action", {})))
        if len(self.rules) + len(new) > MAX_RULES:
            raise ValueError(f"there are more than {MAX_RULES:,} rules: remove some with reset-faults")
        self.rules += new

    def reset(self) -> None:
        """Remove all rules."""
        self.rules.clear()

    def take(self, method: str, path: str) -> dict[str, Any]:
        """Count a call in every rule that it matches, and return the combined actions of those that affect it."""
        actions: dict[str, Any] = {}
        for rule in self.rules:
            if rule.take(method, path):
                actions = {**rule.action, **actions}
        return actions
