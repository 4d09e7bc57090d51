"""Rows that may end without an answer: archived, canceled, too large. The judge allows no others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from batch_assets.emulator.outcomes import SUCCEEDED, Mix
from tests.chaos.bench import LONG_ROWS, Bench
from tests.chaos.faults.case import Case, Tried, digest_of, ended, key_of, result_lines, rule
from tests.chaos.trial import Trial
from tests.core.support import BATCHES, CREATE, LIST

_CANCEL = {"method": "POST", "path": f"{BATCHES}/*/cancel"}
_DELETE = {"method": "DELETE", "path": f"{BATCHES}/*"}
_PROBLEMS = ({"drop": "after_commit"}, {"drop": "before_commit"}, {"status": 500})
# Positions all over the stage at which a process is killed.
_POSITIONS = (4, 9, 15, 22, 30, 40)
_CLEARING_POSITIONS = (250, 350, 450, 550, 650, 750)
_DELETES = "DELETE /v1/messages/batches/{id}"


def cases() -> Iterator[Case]:
    for which in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
        fault = "results: archived before they were collected"
        names = " and ".join(str(number + 1) for number in which)
        yield Case(fault, f"batch {names} of 3", partial(_archived, which=which))
    yield from _cancels()
    yield from _retention()
    yield from _too_large()


def _archived(bench: Bench, which: tuple[int, ...]) -> Tried:
    """The rows of archived batches are errored, and not retried automatically."""
    with bench.trial(bench.prepared("batches")) as trial:
        trial.run("batches")
        batches = ended(bench, trial)
        archived = bench.emulator.archive_batches(*[batches[number] for number in which])
        rows = [key_of(custom_id) for batch_id in archived for custom_id in trial.batches()[batch_id]]
        ends = dict.fromkeys(rows, "errored/results_archived")
        return trial.finish(from_dataset=False, ends=ends), len(archived)


def _cancels() -> Iterator[Case]:
    fault = "cancel in the middle"
    for done in range(3):
        yield Case(fault, f"{done} of 3 batches have ended", partial(_canceled, done=done))
    for sent in range(3):
        yield Case(fault, f"{sent} of 3 files are sent", partial(_canceled, sent=sent))
    for drop in ("after_commit", "before_commit"):
        lost = [rule(CREATE, {"drop": drop}, nth=2), rule(LIST, {"status": 429}, after=3)]
        yield Case(fault, f"a file is in doubt, {drop}", partial(_canceled, lost=lost))
    for action in _PROBLEMS:
        for nth in (1, 2):
            rules = [rule(_CANCEL, action, nth=nth)]
            where = f"cancel {nth}, {action}"
            yield Case(fault, where, partial(_canceled, rules=rules))
    for position in _POSITIONS:
        where = f"killed at position {position}"
        yield Case(fault, where, partial(_canceled, kill_at=position))


def _canceled(
    bench: Bench,
    *,
    done: int = 1,
    sent: int = 3,
    lost: list[dict[str, Any]] | None = None,
    rules: list[dict[str, Any]] | None = None,
    kill_at: int | None = None,
) -> Tried:
    """Canceled rows are marked so, earlier answers are kept, and the next run sends only the other requests."""
    put_off = rule(CREATE, {"status": 429, "headers": {"retry-after": "3600"}}, after=sent)
    with bench.trial(bench.prepared("batches")) as trial:
        with bench.settings(latency=3600, cancel_delay=0):
            with bench.faults(lost or [put_off]):
                trial.run("batches")
            if done:  # without ids, it would end all batches
                bench.emulator.end_batches(*list(trial.batches())[:done])
            with bench.faults(rules or []):
                end = trial.run("cancel", kill_at=kill_at)
            if end.killed:
                trial.run("cancel")
            before = len(trial.accepted())
            trial.run("tick")
            ended(bench, trial)  # a batch adopted on its count alone may be someone else's, and keeps running
            trial.run("unattended")
        trial.expect(len(trial.accepted()) == before, "something was sent although it was canceled")
        answered, canceled = _fates(bench, trial)
        ends = dict.fromkeys(trial.rows.keys() - answered, "canceled")
        lost_rows = trial.verdict(ends=ends).lost
        verdict = trial.finish(from_dataset=True, ask_again=lambda: canceled)
        verdict.lost += lost_rows
        return verdict, len(ends) if kill_at is None else int(end.killed)


def _fates(bench: Bench, trial: Trial) -> tuple[set[str], set[str]]:
    """The keys of answered rows and the digests of canceled requests, as the API reports them."""
    lines = [line for batch_id in trial.batches() for line in result_lines(bench, trial, batch_id)]
    canceled = {digest_of(line["custom_id"]) for line in lines if line["result"]["type"] == "canceled"}
    return {key_of(line["custom_id"]) for line in lines if line["result"]["type"] == "succeeded"}, canceled


def _retention() -> Iterator[Case]:
    fault = "retention clears everything away while work goes on"
    for action in (*_PROBLEMS, {"status": 404}):
        for nth in (1, 2):
            where = f"delete {nth}, {action}"
            rules = [rule(_DELETE, action, nth=nth)]
            yield Case(fault, where, partial(_cleared, rules=rules))
    for position in _CLEARING_POSITIONS:
        yield Case(fault, f"killed at position {position}", partial(_cleared, rules=[], kill_at=position))
    yield Case(fault, "then the ledger is lost", partial(_cleared, rules=[], lose_ledger=True))


def _cleared(
    bench: Bench, rules: list[dict[str, Any]], kill_at: int | None = None, *, lose_ledger: bool = False
) -> Tried:
    """Half of the requests fail at first: the next attempt must not need what retention removes."""
    failing = {"overloaded_error": 0.5, "first": 1}
    with bench.trial(bench.prepared("requests")) as trial:
        before = bench.calls()
        with bench.faults([*rules, rule(CREATE, {"error_mix": failing})]) as struck:
            end = trial.run("clearing", kill_at=kill_at)
            if end.killed:
                end = trial.run("clearing")
                hits = 1
            else:
                hits = struck() if rules else bench.calls()[_DELETES] - before[_DELETES]
        trial.expect_success(end)
        if lose_ledger:
            trial.lose_ledger()
        return trial.finish(from_dataset=True, ask_again=lambda: _failing(trial, Mix(failing))), hits


def _failing(trial: Trial, mix: Mix) -> set[str]:
    """The digests of requests that fail at first, by the emulator's rule: their results are deleted."""
    sent = {custom_id for ids in trial.batches().values() for custom_id in ids}
    return {digest_of(custom_id) for custom_id in sent if mix.pick(custom_id) != SUCCEEDED}


def _too_large() -> Iterator[Case]:
    fault = "create: 413 for single requests (errored, and never retried)"
    for limit in (280, 400, 700):
        yield Case(fault, f"{limit} bytes are allowed", partial(_limited, most_bytes=limit))


def _limited(bench: Bench, most_bytes: int) -> Tried:
    """Two rows of the prepared dataset are long."""
    with bench.trial(bench.prepared(LONG_ROWS)) as trial, bench.settings(max_body_bytes=most_bytes):
        long = [key for key, text in trial.rows.items() if len(text) > most_bytes]
        verdict = trial.finish(from_dataset=True, ends=dict.fromkeys(long, "errored/request_too_large"))
        sent = [custom_id for ids in trial.batches().values() for custom_id in ids]
        trial.expect(len(sent) == len(set(sent)) == len(trial.rows) - len(long), f"{len(sent)} were accepted")
        return verdict, len(long)
