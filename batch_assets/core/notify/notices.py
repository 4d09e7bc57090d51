"""Notices: notifications when results are complete, too many rows failed, or a deadline is near.

A notice is written to the ledger before it is sent, and so is every try, so that no notice is lost when a process
dies. Each is sent at least once. It is sent twice only if a process dies between sending it and recording that.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.core.answers.result_types import failed_share
from batch_assets.core.io.names import RequestFileId
from batch_assets.core.ledger import Transaction, holds, notices, submissions
from batch_assets.core.ledger.budgets import ROOT
from batch_assets.core.ledger.deadlines import ending_soon, expiring_soon
from batch_assets.core.ledger.near_caps import BudgetUse, near_caps
from batch_assets.core.ledger.records import Batch, Notice, RequestFile, Submission
from batch_assets.core.ledger.states import NoticeState
from batch_assets.core.notify.content import content_of, event_of
from batch_assets.core.notify.delivery import (
    NoticeNotSentError,
    NoticeRefusedError,
    OutgoingNotice,
    Send,
    keep_credentials,
)
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.budget import Budget
from batch_assets.core.root import Root
from batch_assets.core.text import count, day, duration

BUDGET_SECONDS = 5.0
"""After this many seconds no further notice is started. The others are sent the next time."""
# Seconds between two tries: the pause doubles each time up to one day. A notice is given up after a week.
_FIRST_PAUSE, _LAST_PAUSE = 60.0, 86400.0
_GIVEN_UP_SECONDS = 7 * 86400.0
# Notices that will not be sent are reported for this long.
_TROUBLE_SECONDS = 86400.0


@dataclass(frozen=True)
class Noticed:
    """A pipeline whose notices are sent.

    Attributes:
        pipeline: The pipeline.
        asset: The path of the asset key of its results, for links.
    """

    pipeline: Pipeline
    asset: Sequence[str]

    def entry(self, target: str) -> NotifyConfig | None:
        """Find the entry of the pipeline file for a target; `None` if there is none."""
        return next((entry for entry in self.pipeline.config.notify if entry.target == target), None)


def note_targets(root: Root, pipelines: Sequence[Pipeline]) -> None:
    """Record the targets of pipelines. A new target is notified only of what happens from now on."""
    wanted = {pipeline.name: {entry.target for entry in pipeline.config.notify} for pipeline in pipelines}
    with root.ledger.read() as tx:
        recorded = notices.targets(tx, wanted)
    changed = [name for name in wanted if wanted[name] != set(recorded[name])]
    if changed:
        with root.ledger.write() as tx:
            for name in changed:
                notices.set_targets(tx, name, wanted[name])


def send_notices(
    root: Root,
    noticed: Mapping[str, Noticed],
    *,
    more: Mapping[str, Send] | None = None,
    announced_only: bool = True,
    budget: float = BUDGET_SECONDS,
) -> list[str]:
    """Record new notices of submissions in the ledger, and send those that are due.

    Args:
        root: The root.
        noticed: The pipelines, by name.
        more: Further senders apart from the core's webhook and email, by their field in the pipeline file.
        announced_only: Whether results count as complete only once their materialization is in Dagster's log.
        budget: Seconds after which no further notice is started.

    Returns:
        One line for each notice that could not be sent, with the reason.
    """
    end = time.monotonic() + budget
    note_targets(root, [entry.pipeline for entry in noticed.values()])
    noticed = {name: entry for name, entry in noticed.items() if entry.pipeline.config.notify}
    if not noticed:
        return []
    _record_new(root, noticed, end, announced_only=announced_only)
    senders = {**_own_senders(), **(more or {})}
    with root.ledger.read() as tx:
        due = notices.due(tx, noticed)
    for notice in due:
        if time.monotonic() >= end:
            break
        _send(root, notice, noticed[notice.pipeline].entry(notice.target), senders)
    with root.ledger.read() as tx:
        troubled = notices.troubled(tx, noticed, tx.now - _TROUBLE_SECONDS)
        return [_trouble(notice, tx.now) for notice in troubled]


def _own_senders() -> dict[str, Send]:
    from batch_assets.core.notify.mail import send_email  # imported only when there may be something to send
    from batch_assets.core.notify.webhook import send_webhook

    return {"webhook": send_webhook, "email": send_email}


@dataclass(frozen=True)
class _Occurrence:
    """Something that targets are notified of.

    Attributes:
        submission: The submission that it is about.
        kind: `complete`, `failed`, `expires`, `uncollected`, `held` or `budget`.
        day: The UTC date, for a kind that is sent once a day; "" for a kind that is sent once.
        ending: The batches near a deadline, each with the seconds left.
        held: The held request files.
        near: The budget of which most is spent.
    """

    submission: Submission
    kind: str
    day: str = ""
    ending: tuple[tuple[Batch, float], ...] = ()
    held: tuple[RequestFile, ...] = ()
    near: BudgetUse | None = None

    def id_for(self, target: str) -> str:
        """The id of the notice to a target. It never changes, not even in a rebuilt ledger."""
        parts = [self.submission.id, self.kind, self.day, target]
        if self.near is not None:  # once for the budget, whichever of its submissions is the newest
            parts = [self.near.pipeline, self.kind, self.near.period, target, str(self.near.budget.picodollars)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _record_new(root: Root, noticed: Mapping[str, Noticed], end: float, *, announced_only: bool) -> None:
    """Record one notice for each occurrence and target, with its content, so that all tries send the same."""
    with root.ledger.read() as tx:
        since = tx.now - _GIVEN_UP_SECONDS
        target_starts = notices.targets(tx, noticed)
        recorded = notices.ids_since(tx, noticed, since)
        occurrences = [
            occurrence
            for entry in noticed.values()
            for occurrence in _occurrences(tx, entry.pipeline, since, announced_only=announced_only)
        ]
        near = _near_caps(tx, noticed, root.settings.budget)
        recorded |= notices.existing(
            tx, [each.id_for(target) for each in near for target in _targets(noticed, each)]
        )
        occurrences += near
        new = {
            occurrence: targets
            for occurrence in occurrences
            if (
                targets := _new_targets(
                    noticed[occurrence.submission.pipeline], occurrence, target_starts, recorded
                )
            )
        }
    for occurrence, targets in new.items():
        if time.monotonic() >= end:
            return
        entry = noticed[occurrence.submission.pipeline]
        content = content_of(
            root,
            occurrence.submission,
            occurrence.kind,
            max_failed=entry.pipeline.config.max_failed,
            asset=entry.asset,
            ending=occurrence.ending,
            held=occurrence.held,
            near=occurrence.near,
        )
        with root.ledger.write(occurrence.submission.pipeline) as tx:
            notices.add(tx, [_row(occurrence, target, content) for target in targets])


def _occurrences(tx: Transaction, pipeline: Pipeline, since: float, *, announced_only: bool) -> list[_Occurrence]:
    occurrences = []
    verdicts = notices.verdicts(tx, pipeline.name, since)
    for submission in notices.finished(tx, pipeline.name, since, announced_only=announced_only):
        kind = "failed" if failed_share(submission.count_map) > pipeline.config.max_failed else "complete"
        if verdicts.get(submission.id, kind) == kind:  # a later change of max_failed sends no second notice
            occurrences.append(_Occurrence(submission, kind))
    today = day(tx.now)
    # After the deadline the user can no longer do anything.
    uncollected = [(batch, seconds) for batch, seconds in ending_soon(tx, pipeline.name) if seconds > 0]
    for kind, ending in (("expires", expiring_soon(tx, pipeline.name)), ("uncollected", uncollected)):
        by_submission: dict[str, list[tuple[Batch, float]]] = {}
        for batch, seconds in ending:
            if batch.file_id is not None:
                submission_id = str(RequestFileId.parse(batch.file_id).submission)
                by_submission.setdefault(submission_id, []).append((batch, seconds))
        occurrences += [
            _Occurrence(submissions.by_id(tx, submission_id), kind, today, tuple(its_batches))
            for submission_id, its_batches in by_submission.items()
        ]
    occurrences += [
        _Occurrence(submission, "held", today, held=tuple(its_files))
        for submission, its_files in holds.held_by_submission(tx, pipeline.name)
    ]
    return occurrences


def _near_caps(tx: Transaction, noticed: Mapping[str, Noticed], of_root: Budget | None) -> list[_Occurrence]:
    """Return the budgets of which most is spent; that of the root for each pipeline, as targets may differ."""
    occurrences = []
    by_name = {ROOT: of_root} | {name: entry.pipeline.budget for name, entry in noticed.items()}
    for near in near_caps(tx, by_name):
        for name in noticed if near.pipeline == ROOT else [near.pipeline]:
            submission = near.submission or submissions.last(tx, name)
            if submission is not None:
                occurrences.append(_Occurrence(submission, "budget", near=near))
    return occurrences


def _targets(noticed: Mapping[str, Noticed], occurrence: _Occurrence) -> list[str]:
    return [entry.target for entry in noticed[occurrence.submission.pipeline].pipeline.config.notify]


def _new_targets(
    noticed: Noticed, occurrence: _Occurrence, target_starts: notices.Targets, recorded: set[str]
) -> list[str]:
    """Return the targets that should be notified of an occurrence and have no notice of it yet."""
    since = target_starts[noticed.pipeline.name]
    return [
        entry.target
        for entry in noticed.pipeline.config.notify
        if event_of(occurrence.kind) in entry.events
        and occurrence.id_for(entry.target) not in recorded
        and entry.target in since
        and (
            occurrence.ending
            or occurrence.held
            or occurrence.near
            or (occurrence.submission.final_at or 0.0) >= since[entry.target]
        )
    ]


def _row(occurrence: _Occurrence, target: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": occurrence.id_for(target),
        "pipeline": occurrence.submission.pipeline,
        "submission_id": occurrence.submission.id,
        "kind": occurrence.kind,
        "target": target,
        "content": json.dumps(content),
    }


def _send(root: Root, notice: Notice, entry: NotifyConfig | None, senders: Mapping[str, Send]) -> None:
    """Try once to send a notice, and record the outcome."""
    field = next((name for name in senders if entry is not None and getattr(entry, name) is not None), None)
    if entry is None or field is None:
        return  # the target was removed from the pipeline file in the meantime
    with root.ledger.write(notice.pipeline) as tx:
        if not notices.claim(tx, notice, _pause(notice.attempts)):
            return
        outgoing = OutgoingNotice(notice.id, json.loads(notice.content), tx.now)
    try:
        keep_credentials(entry, root.settings.api_key)
        senders[field](entry, outgoing)
    except NoticeRefusedError as error:
        state, reason = NoticeState.REFUSED, str(error)
    except NoticeNotSentError as error:
        is_late = outgoing.sent_at - notice.created_at > _GIVEN_UP_SECONDS
        state, reason = NoticeState.GIVEN_UP if is_late else NoticeState.WAITING, str(error)
    else:
        with root.ledger.write(notice.pipeline) as tx:
            notices.sent(tx, notice.id)
        return
    with root.ledger.write(notice.pipeline) as tx:
        notices.failed(tx, notice.id, state, reason)


def _pause(attempts: int) -> float:
    """Return the seconds until the next try after `attempts` tries."""
    return float(min(_FIRST_PAUSE * 2.0 ** min(attempts, 30), _LAST_PAUSE))


def _trouble(notice: Notice, now: float) -> str:
    subject = f"{notice.pipeline}: the notice `{event_of(notice.kind)}` to {notice.target}"
    if notice.state is NoticeState.WAITING:
        # Whole minutes: the command line prints a problem again whenever its text changes.
        pause = 60.0 * max(1, round((notice.next_try_at - now) / 60))
        return f"{subject} waits: {notice.error}, next try in {duration(pause)}"
    if notice.state is NoticeState.REFUSED:
        return f"{subject} was refused: {notice.error}"
    return f"{subject} was given up after {count(notice.attempts, 'try', 'tries')}: {notice.error}"
