"""Progress of a submission, as `status` shows it: with bars in a terminal, as numbers everywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from batch_assets.core.text import count, dollars, duration, moment

if TYPE_CHECKING:
    from batch_assets.core.ledger.records import Batch, Submission
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.root import Root

_WIDTH = 24
_DONE, _LEFT = "━", "╌"


def progress_lines(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield (label, value) for rows with a result and, until every row has one, for requests with an answer."""
    from batch_assets.core.answers.result_types import final_rows
    from batch_assets.core.planning.progress import requests_answered

    submission = snapshot.submission
    counts = submission.count_map
    rows = final_rows(counts) if counts else submission.rejected
    yield "done", progress_of(rows, submission.rows, "row")
    answered, total = requests_answered([snapshot])
    if submission.final_at is None and total:
        yield "answered", progress_of(answered, total, "request")


def batches_as_text(batches: Sequence[Batch], states: str, now: float) -> str:
    """Return the states and, for open batches, the age of the oldest, the next poll and when all will have ended.

    Args:
        batches: All batches of the submission.
        states: The number of batches in each state, as text.
        now: The ledger's time.
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
        details.append(f"will end by {moment(max(ends))}")
    return f"{states}; {', '.join(details)}"


def cost_as_text(root: Root, submission: Submission, *, is_emulated: bool) -> str | None:
    """Return what the answers cost so far as text, None before the first are collected.

    Args:
        root: The root.
        submission: The submission.
        is_emulated: Whether the emulator answers, which bills nothing.
    """
    from batch_assets.core.errors import DamagedFileError
    from batch_assets.core.store.table_cost import table_cost

    try:
        cost = table_cost(root, submission)
    except DamagedFileError as error:
        return f"unknown: {error}"
    if cost is None:
        return None
    emulated = "; the emulator bills nothing" if is_emulated else ""
    if cost.unpriced_models:
        priced = f", {dollars(cost.usd)} for the others" if cost.usd else ""
        return f"unknown: {root.settings.prices.why_unknown(cost.unpriced_models)}{priced}"
    return f"{dollars(cost.usd)} by the price list{emulated}"


def progress_of(done: int, total: int, noun: str) -> str:
    """Return `━━━━╌╌╌╌  1 of 2 rows, 50 %`, without the bar in a pipe. The bar is full only when all are done.

    With the environment variable NO_COLOR it has no colors.
    """
    percent = 100 * done // total if total else 100
    progress = f"{done:,} of {count(total, noun)}, {percent} %"
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return progress
    full = _WIDTH * done // total if total else _WIDTH
    done_part, left_part = _DONE * full, _LEFT * (_WIDTH - full)
    if not os.environ.get("NO_COLOR"):
        done_part, left_part = click.style(done_part, fg="green"), click.style(left_part, dim=True)
    return f"{done_part}{left_part}  {progress}"
