"""Creates that fail for a passing reason: lost replies, dropped connections, a busy API, bad or large bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from tests.chaos.bench import MANY_ROWS, Bench
from tests.chaos.faults.case import Case, Tried, error, failed_in, rule, through
from tests.core.support import CREATE

_POST = "POST /v1/messages/batches"
_GARBLED = "The request body is not valid JSON: unexpected end of data: line 1 column 9 (char 8)"
# Bytes. A body of 30 requests of the prepared dataset has about 4,800, one of a single request 170.
_LIMITS = (4_000, 1_500, 700, 320)
_PASSING = ("overloaded_error", "api_error", "timeout_error", "rate_limit_error", "expired")


def cases() -> Iterator[Case]:
    for nth in (1, 2, 3):
        for reset in (False, True):
            lost = {"drop": "after_commit", "reset": reset}
            how = f"create {nth}, by {'a reset' if reset else 'a close'}"
            yield Case("create: reply lost after acceptance", how, through([rule(CREATE, lost, nth=nth)]))
            for drop in ("before_body", "before_commit"):
                rules = [rule(CREATE, {"drop": drop, "reset": reset}, nth=nth)]
                yield Case("create: connection dropped before", f"{how}, {drop}", through(rules))
        twice = [rule(CREATE, {"drop": "after_commit"}, after=nth - 1, times=2)]
        yield Case("create: reply lost after acceptance", f"create {nth} and the next", through(twice))
    for status in (408, 409, 500, 504, 529):
        for times in (1, 6):
            fault = "create: 408, 409, 500, 504, 529, once and for a while"
            rules = [rule(CREATE, {"status": status}, times=times)]
            yield Case(fault, f"{status}, {times} times", through(rules))
    yield from _rate_limits()
    yield from _too_large()
    yield from _garbled()
    for kind in _PASSING:
        fault = "answers that are passing errors, or expired"
        yield Case(fault, kind, _failing_in_passing(kind))


def _rate_limits() -> Iterator[Case]:
    for times in (1, 4):
        limited = {"status": 429, "headers": {"retry-after": "0.2"}}
        rules = [rule(CREATE, limited, times=times)]
        yield Case("create: 429 with retry-after", f"{times} times", through(rules))
    for nth in (1, 2, 3):
        yield Case("create: 429 without retry-after", f"create {nth}", partial(_put_off, nth=nth))


def _put_off(bench: Bench, nth: int) -> Tried:
    """Let a minute pass, in which nothing more may be sent."""
    with bench.trial(bench.prepared("batches")) as trial:
        with bench.faults([rule(CREATE, {"status": 429}, nth=nth)]) as struck:
            trial.run("batches")
            before = bench.calls()
            trial.run("tick")
            trial.expect(bench.calls()[_POST] == before[_POST], "it did not wait")
            hits = struck()
        trial.ledger("update request_file set not_before = not_before - 60")
        return trial.finish(from_dataset=False), hits


def _too_large() -> Iterator[Case]:
    fault = "create: 413, cut in two until it fits"
    for limit in _LIMITS:
        yield Case(fault, f"{limit} bytes are allowed", partial(_limited, most_bytes=limit))
    for nth in (1, 2):  # the third file holds one request, which would then be too large on its own
        early = {"status": 413, "body": "<html>413 Payload Too Large</html>", "early": True}
        struck = through([rule(CREATE, early, nth=nth)], one_by_one=True)
        yield Case(fault, f"create {nth}, answered by the edge", struck)
    for kill_at in (40, 47, 54, 62):
        yield Case(
            "create: 413, and a kill while it is cut",
            f"position {kill_at}",
            partial(_limited, most_bytes=_LIMITS[1], kill_at=kill_at),
        )


def _limited(bench: Bench, most_bytes: int, kill_at: int | None = None) -> Tried:
    with bench.settings(max_body_bytes=most_bytes), bench.trial(bench.prepared(MANY_ROWS)) as trial:
        trial.run("requests")
        before = bench.calls()
        killed = kill_at is not None and trial.run("batches", kill_at=kill_at).killed
        verdict = trial.finish(from_dataset=False)
        refused = bench.calls()[_POST] - before[_POST] - len(trial.batches())
        return verdict, int(killed) if kill_at is not None else refused


def _garbled() -> Iterator[Case]:
    bad = {"status": 400, "body": error("invalid_request_error", _GARBLED)}
    for nth in (1, 2, 3):
        once = [rule(CREATE, bad, nth=nth)]
        yield Case("create: body garbled in transit", f"create {nth}", through(once))
        twice = [rule(CREATE, bad, after=nth - 1, times=2)]
        yield Case(
            "create: body garbled in transit",
            f"create {nth} and again",
            partial(_refused_for_good, rules=twice),
        )


def _refused_for_good(bench: Bench, rules: list[dict[str, object]]) -> Tried:
    """The file is refused at the second upload. The next run builds its requests again from the dataset."""
    with bench.trial(bench.prepared("batches"), one_by_one=True) as trial:
        before = bench.calls()
        with bench.faults(rules) as struck:
            trial.run("batches")
            hits = struck()
        creates = bench.calls()[_POST] - before[_POST]
        trial.expect((hits, creates) == (2, 4), f"{creates} creates, {hits} of them garbled")
        return trial.finish(from_dataset=True), hits


def _failing_in_passing(kind: str) -> Callable[[Bench], Tried]:
    """Each request is retried once, automatically, and succeeds at the second attempt."""

    def trial(bench: Bench) -> Tried:
        failing = rule(CREATE, {"error_mix": {kind: 0.7, "first": 1}})
        with bench.trial(bench.prepared("batches")) as trial, bench.faults([failing]):
            verdict = trial.finish(from_dataset=False, ask_again=lambda: failed_in(bench, trial))
            return verdict, len(failed_in(bench, trial))

    return trial
