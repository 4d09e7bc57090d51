"""How far a submission is, as `status` shows it: bars in a terminal, numbers everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.core.text import count, dollars, duration

if TYPE_CHECKING:
    from batch_assets.core.ledger.records import Batch, RequestFile, Submission
    from batch_assets.core.root import Root

_WIDTH = 24
_DONE, _LEFT = "━", "╌"


def headway(
    submission: Submission, files: Sequence[RequestFile], batches: Sequence[Batch]
) -> Iterator[tuple[str, str]]:
    """(label, value) for rows that have their result and, until all have it, for requests with an outcome.

    Args:
        files, batches: what the submission's rows wait on.
    """
    from batch_assets.core.answers.result_types import settled_rows
    from batch_assets.core.planning.progress import requests_done

    counts = submission.count_map
    rows = settled_rows(counts) if counts else submission.rejected
    yield "done", _bar(rows, submission.rows, "row")
    done, asked = requests_done(files, batches)
    if submission.final_at is None and asked:
        yield "answered", _bar(done, asked, "request")


def batches_in_words(batches: Sequence[Batch], states: str, now: float) -> str:
    """The states, and of those that are open the oldest, when they are looked at next and until when they end.

    Args:
        states: the numbers of batches by state, in words.
    """
    from batch_assets.core.ledger.states import BatchState

    running = [batch for batch in batches if batch.state is BatchState.OPEN]
    if not running:
        return states
    oldest = now - min(batch.submitted_at or now for batch in running)
    next_look = min(batch.next_poll_at for batch in running) - now
    details = [f"oldest {duration(oldest)}", f"next look in {duration(max(1.0, next_look))}"]
    ends = [batch.expires_at for batch in running if batch.expires_at is not None]
    if ends:
        details.append(f"ended by {text.moment(max(ends))} at the latest")
    return f"{states}; {', '.join(details)}"


def cost_in_words(root: Root, submission: Submission) -> str | None:
    """What the answers cost so far, None before the first are in."""
    from batch_assets.core.errors import DamagedFileError
    from batch_assets.core.prices import no_price_for
    from batch_assets.core.store.table_cost import table_cost

    try:
        found = table_cost(root, submission)
    except DamagedFileError as error:
        return f"unknown: {error}"
    if found is None:
        return None
    emulated = "; the emulator bills nothing" if root.settings.emulator_url else ""
    if found.unpriced_models:
        known = f", {dollars(found.usd)} for the others" if found.usd else ""
        return f"unknown: {no_price_for(found.unpriced_models)}{known}"
    return f"{dollars(found.usd)} by the price list{emulated}"


def _bar(done: int, total: int, what: str) -> str:
    """`━━━━╌╌╌╌  1 of 2 rows, 50 %`, in a pipe without the bar. It is full only when all are done."""
    percent = 100 * done // total if total else 100
    progress = f"{done:,} of {count(total, what)}, {percent} %"
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return progress
    full = _WIDTH * done // total if total else _WIDTH
    bar = click.style(_DONE * full, fg="green") + click.style(_LEFT * (_WIDTH - full), dim=True)
    return f"{bar}  {progress}"
