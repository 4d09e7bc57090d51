"""Faults a test can order: rules that match calls and say what is to go wrong.

A rule is `{"match": {...}, "action": {...}}`. `match` may hold `method`, `path` (a glob without the
query), and which of the matching calls to hit: `after` (skip that many), `nth` (a number from 1, or a
list of them), `times` (stop after that many hits). Without them every matching call is hit. When
several rules hit one call their actions are combined; of the same action the earlier rule's wins.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .outcomes import Mix
from .results import ALTERATIONS

ACTIONS = {
    "delay": "seconds to wait before the call is looked at",
    "status": "answer with this HTTP status instead",
    "body": "body of that answer: JSON, or a string sent as it is; an API error of that status when absent",
    "headers": "headers added to the answer",
    "early": "true: give that answer without reading the request body",
    "drop": "close the connection: before_body, before_commit (body read) or after_commit (reply lost)",
    "reset": "true: drop by a TCP reset instead of a close",
    "truncate": "cut the results: {fraction | bytes | lines, at_line_end: true}",
    "ending": "how cut results end: abort, reset, content_length, clean or chunked",
    "lines": "spoil result lines: {missing, duplicate, foreign, unknown_type, garbage, broken: count}",
    "results_url": "results_url shown, with {id} in it",
    "hide_from_list": "seconds after creation during which a batch is missing from lists",
    "not_found_for": "seconds after creation during which a batch is answered by 404",
    "error_mix": "on create: shares of requests that do not succeed",
}
"""Every action by name, with what its value says."""

_MATCHES = frozenset({"method", "path", "after", "nth", "times"})
_DROPS = ("before_body", "before_commit", "after_commit")
ENDINGS = ("abort", "reset", "content_length", "clean", "chunked")
"""How a cut result stream ends: `abort` closes in mid-chunk, `reset` by a TCP reset, `content_length`
short of the announced length; `clean` (no length announced) and `chunked` (proper last chunk) look
complete to the client."""


@dataclass
class Rule:
    """One fault and how often it has been met: `seen` counts matching calls, `hits` those affected."""

    match: Mapping[str, Any]
    action: Mapping[str, Any]
    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _check(self.match, self.action)

    def take(self, method: str, path: str) -> bool:
        """Whether this call is to be affected; counts it."""
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
        """The rule with its counts, as the control endpoint lists it."""
        return {"match": self.match, "action": self.action, "seen": self.seen, "hits": self.hits}


def _check(match: Mapping[str, Any], action: Mapping[str, Any]) -> None:
    if unknown := match.keys() - _MATCHES:
        raise ValueError(f"unknown in match: {', '.join(sorted(unknown))}")
    if unknown := action.keys() - ACTIONS.keys():
        raise ValueError(f"unknown in action: {', '.join(sorted(unknown))}; known: {', '.join(ACTIONS)}")
    if action.get("drop", _DROPS[0]) not in _DROPS:
        raise ValueError(f"drop must be one of {', '.join(_DROPS)}")
    if action.get("ending", ENDINGS[0]) not in ENDINGS:
        raise ValueError(f"ending must be one of {', '.join(ENDINGS)}")
    if unknown := set(action.get("lines", ())) - set(ALTERATIONS):
        raise ValueError(f"unknown in lines: {', '.join(sorted(unknown))}")
    if unknown := set(action.get("truncate", ())) - {"fraction", "bytes", "lines", "at_line_end"}:
        raise ValueError(f"unknown in truncate: {', '.join(sorted(unknown))}")
    if "error_mix" in action:
        Mix(action["error_mix"])


class Faults:
    """The rules in force, in order."""

    def __init__(self, rules: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rules: list[Rule] = []
        self.add(rules)

    def add(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Put rules in force after those already there; ValueError for a rule that says nothing known."""
        made = []
        for rule in rules:
            if not isinstance(rule, Mapping) or set(rule) - {"match", "action"}:
                raise ValueError('a rule is {"match": {...}, "action": {...}}')
            made.append(Rule(rule.get("match", {}), rule.get("action", {})))
        self.rules += made

    def reset(self) -> None:
        """Put every rule out of force."""
        self.rules.clear()

    def take(self, method: str, path: str) -> dict[str, Any]:
        """The combined actions for a call; counts it for every rule it matches."""
        actions: dict[str, Any] = {}
        for rule in self.rules:
            if rule.take(method, path):
                actions = {**rule.action, **actions}
        return actions
