"""Notices: telling people and programs when results are complete, too many rows failed, or time runs out.

What is to be told is written into the ledger before it is sent, and so is every try: a process that dies loses no
message. It is told at least once, and twice only if one dies between the sending and the note of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from batch_assets.core.io.names import RequestFileId
from batch_assets.core.ledger import Transaction, notices, submissions
from batch_assets.core.ledger.deadlines import ending_soon, expiring_soon
from batch_assets.core.ledger.records import Batch, Notice, Submission
from batch_assets.core.ledger.states import NoticeState
from batch_assets.core.notify.message import content_of, event_of, failed_share
from batch_assets.core.notify.sending import Message, NotSentError, RefusedMessageError, Send
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root

BUDGET_SECONDS = 5.0
"""After as long no further message is begun: the rest has its turn the next time."""
# Between two tries: at first as long, then twice as long each time, down to once a day; for a week in all.
_FIRST_PAUSE, _LAST_PAUSE = 60.0, 86400.0
_GIVEN_UP_SECONDS = 7 * 86400.0
# So long one that will not be tried again is spoken of.
_TROUBLE_SECONDS = 86400.0


@dataclass(frozen=True)
class Noticed:
    """A pipeline whose notices are to be sent.

    Attributes:
        asset: path of the asset key of its results, for links.
    """

    pipeline: Pipeline
    asset: Sequence[str]

    def entry(self, target: str) -> NotifyConfig | None:
        """The entry of the pipeline file for a target."""
        return next((entry for entry in self.pipeline.config.notify if entry.target == target), None)


def note_targets(root: Root, pipelines: Sequence[Pipeline]) -> None:
    """Has the targets of pipelines told of what happens from now on: not of what was complete before they were
    first seen.
    """
    wanted = {pipeline.name: {entry.target for entry in pipeline.config.notify} for pipeline in pipelines}
    with root.ledger.read() as tx:
        known = notices.targets(tx, wanted)
    changed = [name for name in wanted if wanted[name] != set(known[name])]
    if changed:
        with root.ledger.write() as tx:
            for name in changed:
                notices.set_targets(tx, name, wanted[name])


def send_notices(
    root: Root,
    found: Mapping[str, Noticed],
    *,
    more: Mapping[str, Send] | None = None,
    announced_only: bool = True,
    budget: float = BUDGET_SECONDS,
) -> list[str]:
    """Writes down what is to be told of submissions, and sends what is due.

    Args:
        found: pipelines by name.
        more: ways to send other than the core's own webhook and email, by the field of the pipeline file.
        announced_only: results count as complete when their materialization is in Dagster's log.
        budget: seconds after which no further message is begun.

    Returns:
        What could not be sent, and why.
    """
    end = time.monotonic() + budget
    note_targets(root, [noticed.pipeline for noticed in found.values()])
    telling = {name: noticed for name, noticed in found.items() if noticed.pipeline.config.notify}
    if not telling:
        return []
    _write_down(root, telling, end, announced_only=announced_only)
    ways = {**_own_ways(), **(more or {})}
    with root.ledger.read() as tx:
        due = notices.due(tx, telling)
    for notice in due:
        if time.monotonic() >= end:
            break
        _send(root, notice, telling[notice.pipeline].entry(notice.target), ways)
    with root.ledger.read() as tx:
        troubled = notices.troubled(tx, telling, tx.now - _TROUBLE_SECONDS)
        return [_in_words(notice, tx.now) for notice in troubled]


def _own_ways() -> dict[str, Send]:
    from batch_assets.core.notify.mail import send_email  # only who has something to send pays for the imports
    from batch_assets.core.notify.webhook import send_webhook

    return {"webhook": send_webhook, "email": send_email}


@dataclass(frozen=True)
class _Happened:
    """Something that targets are told of.

    Attributes:
        day: of what is told once a day; "" for what is told once.
        ending: batches near their end, with the seconds left.
    """

    submission: Submission
    kind: str
    day: str = ""
    ending: tuple[tuple[Batch, float], ...] = ()

    def id_for(self, target: str) -> str:
        """Of the notice: the same for ever, in a ledger that was made again as well."""
        parts = [self.submission.id, self.kind, self.day, target]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _write_down(root: Root, telling: Mapping[str, Noticed], end: float, *, announced_only: bool) -> None:
    """One notice for each target of what has happened, each with its message: all tries send the same."""
    with root.ledger.read() as tx:
        since = tx.now - _GIVEN_UP_SECONDS
        known = notices.targets(tx, telling)
        written = notices.ids_since(tx, telling, since)
        happened = [
            one
            for name, noticed in telling.items()
            for one in _happened(tx, noticed.pipeline, since, announced_only=announced_only)
        ]
        new = {
            one: targets
            for one in happened
            if (targets := _to_tell(telling[one.submission.pipeline], one, known, written))
        }
    for one, targets in new.items():
        if time.monotonic() >= end:
            return
        noticed = telling[one.submission.pipeline]
        content = content_of(
            root,
            one.submission,
            one.kind,
            max_failed=noticed.pipeline.config.max_failed,
            asset=noticed.asset,
            ending=one.ending,
        )
        with root.ledger.write() as tx:
            notices.add(tx, [_row(one, target, content) for target in targets])


def _happened(tx: Transaction, pipeline: Pipeline, since: float, *, announced_only: bool) -> list[_Happened]:
    found = []
    verdicts = notices.verdicts(tx, pipeline.name, since)
    for submission in notices.finished(tx, pipeline.name, since, announced_only=announced_only):
        kind = "failed" if failed_share(submission) > pipeline.config.max_failed else "complete"
        if verdicts.get(submission.id, kind) == kind:  # max_failed may have been changed since it was told
            found.append(_Happened(submission, kind))
    today = datetime.fromtimestamp(tx.now, UTC).strftime("%Y-%m-%d")
    # Once its time is over, there is nothing left to be done.
    uncollected = [(batch, left) for batch, left in ending_soon(tx, pipeline.name) if left > 0]
    for kind, ending in (("expires", expiring_soon(tx, pipeline.name)), ("uncollected", uncollected)):
        of_submissions: dict[str, list[tuple[Batch, float]]] = {}
        for batch, left in ending:
            if batch.file_id is not None:
                submission_id = str(RequestFileId.parse(batch.file_id).submission)
                of_submissions.setdefault(submission_id, []).append((batch, left))
        found += [
            _Happened(submissions.by_id(tx, submission_id), kind, today, tuple(of_it))
            for submission_id, of_it in of_submissions.items()
        ]
    return found


def _to_tell(noticed: Noticed, one: _Happened, known: notices.Targets, written: set[str]) -> list[str]:
    """The targets that are to be told of it and were not."""
    since = known[noticed.pipeline.name]
    return [
        entry.target
        for entry in noticed.pipeline.config.notify
        if event_of(one.kind) in entry.events
        and one.id_for(entry.target) not in written
        and entry.target in since
        and (one.ending or (one.submission.final_at or 0.0) >= since[entry.target])
    ]


def _row(one: _Happened, target: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": one.id_for(target),
        "pipeline": one.submission.pipeline,
        "submission_id": one.submission.id,
        "kind": one.kind,
        "target": target,
        "content": json.dumps(content),
    }


def _send(root: Root, notice: Notice, entry: NotifyConfig | None, ways: Mapping[str, Send]) -> None:
    """One try."""
    way = next((name for name in ways if entry is not None and getattr(entry, name) is not None), None)
    if entry is None or way is None:
        return  # the pipeline file was changed meanwhile
    with root.ledger.write() as tx:
        if not notices.claim(tx, notice, _pause(notice.attempts)):
            return
        message = Message(notice.id, json.loads(notice.content), tx.now)
    try:
        ways[way](entry, message)
    except RefusedMessageError as error:
        state, why = NoticeState.REFUSED, str(error)
    except NotSentError as error:
        is_late = message.sent_at - notice.created_at > _GIVEN_UP_SECONDS
        state, why = NoticeState.GIVEN_UP if is_late else NoticeState.WAITING, str(error)
    else:
        with root.ledger.write() as tx:
            notices.sent(tx, notice.id)
        return
    with root.ledger.write() as tx:
        notices.failed(tx, notice.id, state, why)


def _pause(attempts: int) -> float:
    """Seconds until the next try, after as many."""
    return float(min(_FIRST_PAUSE * 2.0 ** min(attempts, 30), _LAST_PAUSE))


def _in_words(notice: Notice, now: float) -> str:
    said = f"{notice.pipeline}: the message `{event_of(notice.kind)}` to {notice.target}"
    if notice.state is NoticeState.WAITING:
        minutes = max(1, round((notice.next_try_at - now) / 60))
        return f"{said} waits: {notice.error}, next try in {minutes} min"
    if notice.state is NoticeState.REFUSED:
        return f"{said} was refused: {notice.error}"
    return f"{said} is given up after {notice.attempts} tries: {notice.error}"
