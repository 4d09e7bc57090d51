"""Poll open batches to see which have ended, from the list or one by one, whichever takes fewer calls."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from batch_assets.core.api.client import PAGE
from batch_assets.core.api.errors import ApiError, NotFoundError, RefusedError, UnknownOutcomeError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches import workspace
from batch_assets.core.errors import EndpointMismatchError, SettingsError
from batch_assets.core.ledger import batches
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.looks import Look, record
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BATCHES_UNENDED, BatchState
from batch_assets.core.remedies import CancelBatch, Remedy
from batch_assets.core.root import Root

# The API may not show a new batch for a minute or two; after this long the batch counts as unreachable.
UNREACHABLE_AFTER_SECONDS = 300.0
# The older a batch, the less often it is polled, down to once in this many seconds.
LAST_INTERVAL = 300.0
_SHARE_OF_AGE = 0.05
# Waits from this length on are rounded up to a whole second.
_ROUNDED_SECONDS = 60.0


@dataclass
class PollReport:
    """Report of one poll.

    Attributes:
        changed: Names of pipelines -> ids of the batches whose state or counts changed.
        calls: The number of API calls made.
        problems: The problems, as text. The next poll tries again.
        remedies: What the user can do about the problems.
    """

    changed: dict[str, list[str]] = field(default_factory=dict)
    calls: int = 0
    problems: list[str] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)


def poll(root: Root, *, budget: float = 30.0, now: bool = False) -> PollReport:
    """Poll the open batches that are due.

    Args:
        root: The root.
        budget: Seconds after which no further call is made.
        now: Poll all open batches, due or not.

    Raises:
        SettingsError: When the settings name no API.
        EndpointMismatchError: When the root belongs to another API.
    """
    deadline = time.monotonic() + budget
    report = PollReport()
    with root.ledger.read() as tx:
        open_batches = batches.in_state(tx, *BATCHES_UNENDED)
        due = [batch for batch in open_batches if now or batch.next_poll_at <= tx.now]
    if not due:
        return report
    root.check_endpoint()
    try:
        shown_ids: set[str] = set()
        if len(due) > _pages_for(due):
            shown_ids = _look_in_list(root, due, _just_before(open_batches, due), report, deadline)
        for batch in due:
            if batch.id in shown_ids:
                continue
            if time.monotonic() >= deadline:
                return report
            _look(root, batch, report, deadline)
    except ApiError as error:
        report.problems.append(str(error))
    return report


def try_poll(root: Root, *, budget: float, now: bool = False) -> PollReport:
    """Call `poll`. A missing API or one of another root is reported, not raised."""
    try:
        return poll(root, budget=budget, now=now)
    except (EndpointMismatchError, SettingsError) as error:
        return PollReport(problems=[str(error)], remedies=[error.remedy] if error.remedy is not None else [])


def _pages_for(due: list[Batch]) -> int:
    """Guess how many list pages show the batches. The real number is unknown, so the guess is high."""
    return 2 + len(due) // PAGE


def _just_before(open_batches: list[Batch], due: list[Batch]) -> str | None:
    """Return the id of the open batch that is just before the due ones in the list; `None` to begin at the start.

    A look whose time is over before the end of the list would otherwise begin with the same pages each time, and
    the older batches would never be seen.
    """
    newest = max(batch.created_at or math.inf for batch in due)
    newer = [batch for batch in open_batches if (batch.created_at or 0.0) > newest and not batch.provisional]
    return min(newer, key=lambda batch: batch.created_at or 0.0).id if newer else None


def _look_in_list(
    root: Root, due: list[Batch], after_id: str | None, report: PollReport, deadline: float
) -> set[str]:
    """Look for the due batches on some pages of the list. Reads fewer pages than there are due batches.

    Each page is recorded in one transaction, before the next one is read.

    Args:
        root: The root.
        due: The due batches.
        after_id: The batch after which the list is read; `None` for its start.
        report: Where to note what changed.
        deadline: When the time is over.

    Returns:
        The ids of the batches that were on these pages.
    """
    oldest = min(batch.created_at or 0.0 for batch in due)
    wanted = {batch.id: batch for batch in due}
    shown_ids: set[str] = set()
    for _ in range(len(due) - 1):
        try:
            report.calls += 1
            page = root.api.page(after_id=after_id, seconds=deadline - time.monotonic())
        except RefusedError as error:
            if after_id is None or shown_ids or error.stop or error.waits:
                raise
            after_id = None  # the API may have deleted that batch
            continue
        shown = {batch.id: batch for batch in page.batches if batch.id in wanted}
        _record(root, [(wanted[id_], batch) for id_, batch in shown.items()], report)
        shown_ids |= shown.keys()
        done = len(shown_ids) == len(wanted) or not page.has_more or not page.batches
        if done or page.batches[-1].created_at < oldest or time.monotonic() >= deadline:
            break
        after_id = page.last_id
    return shown_ids


def _look(root: Root, batch: Batch, report: PollReport, deadline: float) -> None:
    try:
        report.calls += 1
        reported = root.api.retrieve(batch.id, seconds=deadline - time.monotonic())
    except NotFoundError:
        _missing(root, batch, report)
    except RefusedError as error:
        if error.stop or error.waits:
            raise  # the API would answer the same for every other batch
        report.problems.append(f"{batch.id}: {error}")
    except UnknownOutcomeError as error:
        report.problems.append(f"{batch.id}: {error}")
    else:
        _record(root, [(batch, reported)], report, root.api.poll_floor)


def _record(root: Root, looks: list[tuple[Batch, BatchObject]], report: PollReport, floor: float = 0.0) -> None:
    """Record what the API shows of some batches, in one transaction.

    Args:
        root: The root.
        looks: Each batch as the ledger had it, and as the API shows it.
        report: Where to note what changed.
        floor: The seconds that the API asked to wait between looks.
    """
    if not looks:
        return
    pipelines = {batch.pipeline for batch, _ in looks}
    with root.ledger.write(pipelines.pop() if len(pipelines) == 1 else None) as tx:
        entries = [Look(batch, reported, _next_poll_at(root, tx.now, batch, floor)) for batch, reported in looks]
        for batch in record(tx, entries):
            report.changed.setdefault(batch.pipeline or "", []).append(batch.id)


def _missing(root: Root, batch: Batch, report: PollReport) -> None:
    end = results_end(batch)
    with root.ledger.read() as tx:
        is_late = batch.missing_since is not None and tx.now - batch.missing_since >= UNREACHABLE_AFTER_SECONDS
        is_over = is_late and end is not None and tx.now >= end
    if is_over and not batch.provisional:
        with root.ledger.write(batch.pipeline) as tx:
            batches.end_unseen(tx, batch.id, "29 days have passed, and the API answers 404")
        report.changed.setdefault(batch.pipeline or "", []).append(batch.id)
        return
    # Only this case needs the workspace: finding out whose it is takes API calls.
    is_gone = (
        is_late and batch.provisional and workspace.is_ours(root, workspace.current_intent(root, batch.file_id))
    )
    with root.ledger.write(None if is_gone else batch.pipeline) as tx:
        is_lost = batches.missing(
            tx, batch, UNREACHABLE_AFTER_SECONDS, tx.now + LAST_INTERVAL / 5, is_gone=is_gone
        )
    if is_lost or batch.state is BatchState.UNREACHABLE:
        report.problems.append(workspace.unreachable(batch.id))
        report.remedies.append(CancelBatch(batch.id, batch.pipeline or ""))


def _next_poll_at(root: Root, now: float, batch: Batch, floor: float) -> float:
    """Return when a batch is next polled. Old batches share whole seconds, and with them a statement."""
    wait = max(_interval(root, max(0.0, now - (batch.submitted_at or now))), floor)
    return math.ceil(now + wait) if wait >= _ROUNDED_SECONDS else now + wait


def _interval(root: Root, age: float) -> float:
    """Return the seconds until the next poll of a batch of this age."""
    return min(max(age * _SHARE_OF_AGE, root.settings.first_poll), LAST_INTERVAL)
