"""Lost replies while the list of batches is late, long, unavailable, or full of other people's batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from tests.chaos.bench import Bench, Rules
from tests.chaos.faults.case import LOOKS, Case, Tried, rule, submit_as_someone_else, through
from tests.chaos.trial import Trial
from tests.core.support import CREATE, LIST

# An upload that may have arrived counts as lost after this long. Batches are hidden for less.
_GRACE, _HIDDEN = 2.0, 0.7
_HOUR = 3600.0
_PAGE = 1000  # batches, the most that the list shows at once
_STRANGERS, _STRANGERS_PAUSE = 50, 0.02  # seconds
_DROPS = ("after_commit", "before_commit")

Strangers = Callable[[Bench, Trial], AbstractContextManager[None]]


def cases() -> Iterator[Case]:
    for nth in (1, 2, 3):
        lost = rule(CREATE, {"drop": "after_commit"}, nth=nth)
        hidden = rule(LIST, {"hide_from_list": _HIDDEN})
        fault = "reply lost, and list shows the batch only after a while"
        yield Case(fault, f"create {nth}", through([lost, hidden], grace=_GRACE))
        fault = "reply lost, and list hides the batch beyond the grace period (paid twice and reported)"
        yield Case(fault, f"create {nth}", partial(_hidden_for_long, lost=lost))
        for drop in _DROPS:
            rules = [rule(CREATE, {"drop": drop}, nth=nth)]
            fault = "reply lost, and others submit batches of the same size"
            for when, strangers in (("before", _before), ("at the same moment", _all_the_while)):
                yield Case(fault, f"create {nth}, {drop}, {when}", _among(strangers, rules))
    for nth, count in ((1, _PAGE + 50), (2, 2 * _PAGE + 50)):
        fault = "reply lost, and pages of other people's batches since"
        lost = rule(CREATE, {"drop": "after_commit"}, nth=nth)
        trial = partial(_found_on_a_later_page, lost=lost, strangers=count)
        yield Case(fault, f"create {nth}, {count:,} batches", trial)
    for seconds in (0.3, 0.7, 1.2):
        fresh = [rule(LOOKS, {"not_found_for": seconds, "hide_from_list": seconds})]
        yield Case("404 of a fresh batch for a while", f"{seconds} s", through(fresh, grace=_GRACE))
    yield from _twins()
    yield from _clocks()


def _hidden_for_long(bench: Bench, lost: dict[str, Any]) -> Tried:
    """A request is paid twice only in this case. It is reported when the list shows the batch at last."""
    with bench.trial(bench.prepared("requests")) as trial:
        with bench.faults([lost, rule(LIST, {"hide_from_list": _HOUR})]) as struck:
            trial.expect_success(trial.run("chain"))
            hits = struck()
        batches = len(trial.accepted())
        trial.run("tick")
        paid_twice = trial.ledger("select id from batch where paid_twice")
        trial.expect(
            (batches, len(paid_twice)) == (4, 1), f"{batches} batches, {len(paid_twice)} reported as paid twice"
        )
        return trial.finish(from_dataset=True, reported=True), hits


def _among(strangers: Strangers, rules: Rules) -> Callable[[Bench], Tried]:
    def trial(bench: Bench) -> Tried:
        with bench.trial(bench.prepared("requests")) as trial:
            with strangers(bench, trial), bench.faults(rules) as struck:
                trial.expect_success(trial.run("chain"))
                hits = struck()
            return trial.finish(from_dataset=True), hits

    return trial


@contextmanager
def _before(bench: Bench, trial: Trial) -> Iterator[None]:
    """Two batches of each size that ours have, in the same workspace."""
    for size in (1, 2, 1, 2):
        submit_as_someone_else(bench, trial, size)
    yield


@contextmanager
def _all_the_while(bench: Bench, trial: Trial) -> Iterator[None]:
    """Batches of each size in turn, while ours are submitted: a file stays in doubt while one of them runs."""
    done = threading.Event()

    def submit() -> None:
        while len(trial.foreign) < _STRANGERS and not done.wait(_STRANGERS_PAUSE):
            submit_as_someone_else(bench, trial, 1 + len(trial.foreign) % 2)

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _found_on_a_later_page(bench: Bench, lost: dict[str, Any], strangers: int) -> Tried:
    with bench.trial(bench.prepared("batches")) as trial:
        # The anchor is read; afterwards the list is unavailable.
        with bench.faults([lost, rule(LIST, {"status": 500}, after=lost["match"]["nth"])]) as struck:
            trial.run("batches")
            hits = struck()
        in_doubt = trial.ledger("select count(*) from request_file where state in ('sending', 'unresolved')")
        trial.expect(in_doubt == [(1,)], f"{in_doubt} files are in doubt")
        for _ in range(strangers):
            submit_as_someone_else(bench, trial, 3)
        return trial.finish(from_dataset=False), hits


def _twins() -> Iterator[Case]:
    """The first two of three request files have the same number of requests."""
    fault = "two own files of equal count, both lost"
    for first in _DROPS:
        for second in _DROPS:
            rules = [rule(CREATE, {"drop": first}, nth=1), rule(CREATE, {"drop": second}, nth=2)]
            yield Case(fault, f"{first}, then {second}", through(rules))
            away = rule(LIST, {"status": 500}, nth=[2, 3, 4, 5, 6, 7])
            yield Case(fault, f"{first}, then {second}, and no list between", through([*rules, away]))
    for kept in (0, 1):
        name = "no receipt" if not kept else "the second one's receipt"
        where = f"the ledger is lost too, {name} is left"
        yield Case(fault, where, partial(_without_receipts, kept=kept))


def _without_receipts(bench: Bench, kept: int) -> Tried:
    with bench.trial(bench.prepared("batches")) as trial:
        trial.run("batches")
        receipts = sorted(trial.root.glob("*/requests/*/*.batch.json"))
        for path in receipts[: 2 - kept]:
            path.unlink()
        trial.lose_ledger()
        return trial.finish(from_dataset=False), 2


def _clocks() -> Iterator[Case]:
    fault = "reply lost, and the clocks differ by an hour"
    for skew in (-_HOUR, _HOUR):
        for nth in (1, 2, 3):
            where = f"create {nth}, {skew / _HOUR:+.0f} h"
            yield Case(fault, where, partial(_skewed, nth=nth, skew=skew))


def _skewed(bench: Bench, nth: int, skew: float) -> Tried:
    """The API's clock differs from ours by this many seconds."""
    with bench.trial(bench.prepared("batches")) as trial:
        submit_as_someone_else(bench, trial, 2)
        try:
            bench.emulator.clock(skew=skew)
            lost = rule(CREATE, {"drop": "after_commit"}, nth=nth)
            with bench.faults([lost, rule(LIST, {"status": 500}, after=nth)]) as struck:
                trial.run("batches")
                hits = struck()
            return trial.finish(from_dataset=False), hits
        finally:
            bench.emulator.clock(skew=0)
