"""Results that are cut, corrupt, odd, lost, or announced at another host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import orjson

from tests.chaos.bench import Bench
from tests.chaos.faults.case import (
    LOOKS,
    RETRIEVE,
    Case,
    Tried,
    digest_of,
    key_of,
    result_lines,
    rule,
    through,
)
from tests.chaos.trial import Trial
from tests.core.support import BATCHES, CREATE, LIST, RESULTS

_ENDINGS = ("abort", "reset", "content_length", "clean", "chunked")
_COUNTS = (1, 7, 120)  # of the 120 lines of a batch
# A missing answer is requested again if it is still missing after an hour and three downloads.
_AN_HOUR, _DOWNLOADS = 4000, 3
_ODD = {
    "a lone high surrogate": "\\ud83d",
    "a lone low surrogate": "\\udc00",
    "U+2028 and U+2029": "\u2028\u2029",
    "NEL, VT, FF, FS": "\x85\\u000b\\f\\u001c",
    "a carriage return, a NUL, a BOM": "\\r\\u0000\ufeff",
}


def cases() -> Iterator[Case]:
    for tenth in range(10):
        for ending in _ENDINGS:
            cut = {"truncate": {"fraction": tenth / 10}, "ending": ending}
            fault = "results: reset" if ending == "reset" else "results: cut short"
            where = f"after {tenth} tenths, ending by {ending}"
            yield Case(f"{fault} at every tenth", where, through([rule(RESULTS, cut, times=2)], "collection"))
        at_end = {"truncate": {"fraction": tenth / 10, "at_line_end": True}, "ending": "chunked"}
        where = f"after {tenth} tenths, a proper end"
        yield Case("results: cut at a line end", where, through([rule(RESULTS, at_end, times=2)], "collection"))
    for count in _COUNTS:
        for kind in ("duplicate", "missing", "foreign", "garbage", "broken"):
            corrupt = [rule(RESULTS, {"lines": {kind: count}}, times=2)]
            fault = "results: lines too many, missing or corrupt"
            yield Case(fault, f"{count} {kind}", through(corrupt, "collection"))
        for kind in ("duplicate", "foreign"):
            every_time = [rule(RESULTS, {"lines": {kind: count}})]
            yield Case("results: lines too many, every time", f"{count} {kind}", through(every_time, "collection"))
        for kind in ("missing", "garbage"):
            lost = rule(RESULTS, {"lines": {kind: count}})
            where = f"{count} {kind}"
            yield Case("results: lines lost for good (retried)", where, partial(_lost, lost=lost))
        unknown = rule(RESULTS, {"lines": {"unknown_type": count}})
        where = f"{count} lines"
        yield Case("results: unknown result types", where, partial(_unknown, unknown=unknown))
    for name, text in _ODD.items():
        for at in (0, -1):
            position = "last" if at else "first"
            fault = "results: line separators, lone surrogates and unknown keys in answers"
            yield Case(fault, f"{name}, {position} line", partial(_odd, text=text, at=at))
    fault = "results_url and redirects to another host"
    yield Case(fault, "results_url", _elsewhere(lambda url: [rule(LOOKS, {"results_url": url})]))
    for name, call in {"create": CREATE, "list": LIST, "retrieve": RETRIEVE, "results": RESULTS}.items():
        for nth in (1, 2):
            yield Case(fault, f"{name} {nth} redirected", _elsewhere(_redirect(call, nth)))


def _lost(bench: Bench, lost: dict[str, Any]) -> Tried:
    """Requests that are given up as lost after an hour are sent again, and no others."""
    with bench.trial(bench.prepared("collection")) as trial:
        with bench.faults([lost]) as struck:
            for _ in range(_DOWNLOADS):
                trial.run("tick")
            hits = struck()
            shown = {digest for batch_id in trial.batches() for digest in _digests(bench, trial, batch_id)}
            trial.ledger(f"update batch set failing_since = failing_since - {_AN_HOUR}")
            trial.run("tick")
        sent = {digest_of(custom_id) for ids in trial.batches().values() for custom_id in ids}
        trial.expect(trial.table.exists() and len(sent) > len(shown), "nothing was missing")
        return trial.finish(from_dataset=False, ask_again=lambda: sent - shown), hits


def _digests(bench: Bench, trial: Trial, batch_id: str) -> set[str]:
    """The digests of the requests whose answers the API shows now."""
    return {digest_of(line["custom_id"]) for line in result_lines(bench, trial, batch_id)}


def _unknown(bench: Bench, unknown: dict[str, Any]) -> Tried:
    """The rows with an unknown result type are errored and not retried, and no others."""
    with bench.trial(bench.prepared("collection")) as trial, bench.faults([unknown]) as struck:
        odd = {
            key_of(line["custom_id"])
            for batch_id in trial.batches()
            for line in result_lines(bench, trial, batch_id)
            if line["result"]["type"] == "postponed"
        }
        seen = struck()
        ends = dict.fromkeys(odd, "errored/unknown_result_type")
        return trial.finish(from_dataset=False, ends=ends), struck() - seen


def _odd(bench: Bench, text: str, at: int) -> Tried:
    """One line of each batch has unknown keys, and this text at the end of its answer."""
    with bench.trial(bench.prepared("collection")) as trial:
        rules = []
        for batch_id in trial.batches():
            lines = result_lines(bench, trial, batch_id)
            message = lines[at]["result"]["message"]
            message["content"][0]["text"] += "<odd>"
            message["content"].append({"type": "novel", "deep": [{}]})
            lines[at]["novel"] = lines[at]["result"]["novel"] = message["usage"]["novel"] = {"deep": [1]}
            body = b"".join(orjson.dumps(line) + b"\n" for line in lines).decode().replace("<odd>", text)
            call = {"method": "GET", "path": f"{BATCHES}/{batch_id}/results"}
            rules.append(rule(call, {"status": 200, "body": body}))
        with bench.faults(rules) as struck:
            return trial.finish(from_dataset=False), struck()


def _redirect(call: dict[str, str], nth: int) -> Callable[[str], list[dict[str, Any]]]:
    def rules(url: str) -> list[dict[str, Any]]:
        away = rule(call, {"status": 307, "headers": {"location": url}}, nth=nth)
        return [away, *([rule(LIST, {"hide_from_list": 3600})] if call is RETRIEVE else [])]

    return rules


def _elsewhere(rules: Callable[[str], list[dict[str, Any]]]) -> Callable[[Bench], Tried]:
    """The other host must not receive the key: no one may even connect to it."""

    def trial(bench: Bench) -> Tried:
        with socket.create_server(("127.0.0.1", 0)) as other, bench.trial(bench.prepared("requests")) as trial:
            other.setblocking(False)
            url = f"http://127.0.0.1:{other.getsockname()[1]}/results"
            with bench.faults(rules(url)) as struck:
                trial.run("chain")  # some of these refusals stop it until a user has looked
                hits = struck()
            verdict = trial.finish(from_dataset=True)
            try:
                other.accept()[0].close()
                trial.expect(False, "the other host was called")
            except BlockingIOError:
                pass
            return verdict, hits

    return trial
