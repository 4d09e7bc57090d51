"""Files that a user removes by hand, before and after retention has removed others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried
from tests.chaos.trial import Trial

_KINDS = {
    "request file": "requests/*/part-00000.jsonl",
    "index": "requests/*/index.parquet",
    "receipt": "requests/*/part-00000.batch.json",
    "manifest": "requests/*/manifest.json",
    "table": "results/results.parquet",
}


def cases() -> Iterator[Case]:
    fault = "files removed by hand"
    for other in _KINDS:
        yield Case(fault, f"response and {other}", partial(_downloaded_again, kinds=[other]))
    yield Case(fault, "response, after request files", partial(_downloaded_again, kinds=[], retention="files"))
    for other in (None, "receipt", "index"):
        where = "response, after retention" + (f", and {other}" if other else "")
        yield Case("answers removed by hand", where, partial(_held, other=other))


def _response(trial: Trial) -> Path:
    """The response file of the first request file."""
    ((batch_id,),) = trial.ledger("select batch_id from request_file where name = 'part-00000.jsonl'")
    return trial.root / "asked" / "responses" / f"{batch_id}.parquet"


def _downloaded_again(bench: Bench, kinds: list[str], retention: str = "") -> Tried:
    """The API still has the answers, and their custom_ids name the requests."""
    with bench.trial(bench.prepared("results")) as trial:
        trial.expect_success(trial.run("results"))
        if retention:
            trial.expect_success(trial.run("clear files"))
        _response(trial).unlink()
        for kind in kinds:
            next((trial.root / "asked").glob(_KINDS[kind])).unlink()
        if "index" in kinds or "manifest" in kinds:
            trial.run("tick")
        return trial.finish(from_dataset=True), 1


def _held(bench: Bench, other: str | None) -> Tried:
    """No one else has the answers: nothing is sent for them until they are back or a user gives them up."""
    with bench.trial(bench.prepared("requests")) as trial:
        trial.expect_success(trial.run("clearing"))
        before = len(trial.batches())
        path = _response(trial)
        kept = {path: path.read_bytes()}
        if other is not None:
            second = next((trial.root / "asked").glob(_KINDS[other]))
            kept[second] = second.read_bytes()
        for removed in kept:
            removed.unlink()
        for task in ("requests", "tick", "requests", "tick"):
            end = trial.run(task)
            trial.expect(not end.failed or other == "index", f"{task} failed:\n{end.log}")
        trial.expect(len(trial.batches()) == before, "something was sent again")
        for removed, content in kept.items():
            removed.write_bytes(content)
        return trial.finish(from_dataset=True), 1
