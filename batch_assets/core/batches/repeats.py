"""Find batches that something between us and the API made of a request file in addition to our own create.

A gateway may repeat a POST by itself. If the first one was accepted and the reply to the second one is a refusal,
the refusal is not certain. If both were accepted, the file is paid twice.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf

from batch_assets.core.api.errors import ApiError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches.first_line import first_custom_id
from batch_assets.core.ledger import Transaction, batches, files
from batch_assets.core.ledger.intents import CLOCK_MARGIN_SECONDS, IntentOutcome
from batch_assets.core.ledger.records import Batch, Intent, RequestFile
from batch_assets.core.root import Root
from batch_assets.core.store.known_requests import KnownRequests

# A repeated POST is accepted at most this long before or after ours: a create may take ten minutes.
NEAR_SECONDS = 900.0
# A batch may have a later time than the API's answers by this much, because several clocks set these times.
LATE_SECONDS = 60.0
# The ledger's clock is faster than the API's by at most this factor, see `core/ledger/clock.py`.
_FASTEST_CLOCK = 1.01
# How long an upload may have taken whose end is not recorded.
_UPLOAD_SECONDS = 60.0


def is_older(intent: Intent, reported: BatchObject) -> bool:
    """Whether a batch was there before an intent was written."""
    if intent.anchor_created_at is None:
        return False
    return reported.id in intent.excluded or reported.created_at < intent.anchor_created_at - CLOCK_MARGIN_SECONDS


def of_refused_intents(
    root: Root, file: RequestFile, only: int | None = None
) -> tuple[Intent, BatchObject] | None:
    """Return the newest batch that a POST of a file may have become although it was refused, and its intent.

    It is unknown to the ledger, newer than the anchor of that POST, not newer than its refusal, and has the count
    of the file. A POST that was in doubt, and whose file is sent again after the grace period, is not looked at
    again.

    Args:
        root: The root.
        file: The request file.
        only: The id of an intent: only its batch is looked for.

    Raises:
        ApiError: When the list cannot be read now.
    """
    with root.ledger.read() as tx:
        intents = [intent for intent in files.of_file(tx, file.id) if _may_be_accepted(intent)]
        intents = [intent for intent in intents if only in (None, intent.id)]
        known, now = batches.known_ids(tx) if intents else set(), tx.now
    if not intents:
        return None
    made, latest, sought = None, None, intents
    for batch in root.api.batches_back_to(_earliest_anchor(intents)):
        latest = latest if latest is not None else _latest(root, intents, now)
        # What follows an anchor in the list was there before the POST.
        sought = [intent for intent in sought if intent.anchor_id != batch.id]
        is_candidate = batch.id not in known and batch.total == file.requests
        if is_candidate and (intent := _newest_of(sought, batch, latest)) is not None:
            made = intent, batch
        if made is not None or not sought:
            break
    _limit(root, file.pipeline, intents, _latest(root, intents, now) if latest is None else latest)
    return made


def _may_be_accepted(intent: Intent) -> bool:
    return intent.outcome is not IntentOutcome.RESENT and intent.body_complete is not False


def _earliest_anchor(intents: list[Intent]) -> float | None:
    times = [intent.anchor_created_at for intent in intents]
    return None if None in times else min(time for time in times if time is not None)


def _newest_of(intents: list[Intent], batch: BatchObject, latest: dict[int, float]) -> Intent | None:
    """Return the newest of some intents whose batch this may be."""
    made = (
        intent
        for intent in reversed(intents)
        if not is_older(intent, batch) and batch.created_at <= latest[intent.id]
    )
    return next(made, None)


def _latest(root: Root, intents: list[Intent], now: float) -> dict[int, float]:
    """Return by intent the time after which no batch can be its, by the API's clock.

    If the list could not be read right after a refusal, its time is reckoned back from the list that is read now.

    Args:
        root: The root.
        intents: The intents.
        now: The ledger's clock just before the list was read.
    """
    latest, listed_at = {}, root.api.server_time
    for intent in intents:
        latest[intent.id] = inf if intent.latest_created_at is None else intent.latest_created_at
        if intent.latest_created_at is None and intent.last_byte_at is not None and listed_at is not None:
            age, took = now - intent.last_byte_at, intent.last_byte_at - intent.started_at
            latest[intent.id] = listed_at - age / _FASTEST_CLOCK + took + LATE_SECONDS
    return latest


def _limit(root: Root, pipeline: str, intents: list[Intent], latest: dict[int, float]) -> None:
    """Record the limits that were unknown: the list was read, with a key of the right workspace."""
    unseen = [intent.id for intent in intents if intent.latest_created_at is None and latest[intent.id] < inf]
    if not unseen:
        return
    with root.ledger.write(pipeline) as tx:
        for intent_id in unseen:
            files.limit_creation(tx, intent_id, latest[intent_id])
            files.unwatch(tx, intent_id)


def accepted_too(root: Root, file: RequestFile, intent_id: int) -> BatchObject | None:
    """Return the batch that a refused file may have become all the same; `None` if the list shows none.

    Args:
        root: The root.
        file: The request file, which was refused just now.
        intent_id: The intent of the refused POST.

    Raises:
        ApiError: When the list cannot be read now.
    """
    with root.ledger.read() as tx:
        intent = files.intent_of(tx, file.id, intent_id)
    made = of_refused_intents(root, file, only=intent_id)
    limit_refused(root, file.pipeline, intent_id, intent.started_at)
    return made[1] if made is not None else None


def contradiction(tx: Transaction, file: RequestFile, intent_id: int, reported: BatchObject) -> str | None:
    """Return why the reply to a POST cannot be about its file; `None` if it can.

    Args:
        tx: The transaction.
        file: The request file.
        intent_id: The intent of the POST.
        reported: The batch that the reply names.
    """
    known = batches.by_id(tx, reported.id)
    if known is not None and not known.provisional:
        problem = f"which the ledger knows as a batch of {known.file_id or 'someone else'}"
    elif is_older(files.intent_of(tx, file.id, intent_id), reported):
        problem = "which is older than the upload"
    elif reported.total not in (0, file.requests):
        problem = f"which has {reported.total:,} requests instead of {file.requests:,}"
    else:
        return None
    return f"the reply names {reported.id}, {problem}"


def limit_refused(root: Root, pipeline: str, intent_id: int, started_at: float) -> None:
    """Record until when a refused POST may have been accepted, right after the list was read.

    What repeats a POST does so before its reply is here, or within the time of the upload. So batches that others
    create later in the workspace do not put the file in doubt.
    """
    if (listed_at := root.api.server_time) is None:
        return
    with root.ledger.write(pipeline) as tx:
        files.limit_creation(tx, intent_id, listed_at + max(0.0, tx.now - started_at) + LATE_SECONDS)


def is_refused_after_all(tx: Transaction, intent: Intent) -> bool:
    """Whether the batch that put a refused file in doubt has proved to belong to another file, or to others."""
    if intent.candidate_id is None or (known := batches.by_id(tx, intent.candidate_id)) is None:
        return False
    return not known.provisional and known.file_id != intent.file_id


def text_about(candidate: BatchObject) -> str:
    """Explain why a refused file is in doubt."""
    return (
        f"the API shows {candidate.id}, which is newer than the upload and has as many requests: something "
        "between here and the API may have sent the file twice. Nothing is sent before it is known whose it is"
    )


def look_for(root: Root, batch_ids: list[str]) -> list[str]:
    """Look for batches that repeat some of ours, and record those that are proved, so that they are collected too.

    A batch that still runs, or whose results cannot be read now, is looked at again for a day.

    Args:
        root: The root.
        batch_ids: Ids of batches of ours that were just collected.

    Returns:
        The ids of the batches that were found.
    """
    with root.ledger.read() as tx:
        collected = {batch.id: batch for batch in batches.by_ids(tx, batch_ids)}
    own = [collected[id_] for id_ in batch_ids if id_ in collected and _is_ours(collected[id_])]
    by_count: dict[int, list[Batch]] = defaultdict(list)
    for batch in own:
        by_count[batch.requests].append(batch)
    if not own:
        return []
    try:
        alike = [
            reported
            for reported in root.api.batches_back_to(min(batch.created_at or 0.0 for batch in own) - NEAR_SECONDS)
            if reported.total in by_count
        ]
    except ApiError:
        _watch(root, own)
        return []
    with root.ledger.read() as tx:
        known = {batch.id for batch in batches.by_ids(tx, [reported.id for reported in alike])}
    repeating = []
    for reported in alike:
        if reported.id in known:
            continue
        near = [batch for batch in by_count[reported.total] if _may_repeat(root, batch, reported)]
        custom_id = first_custom_id(root, reported) if reported.ended and near else None
        if custom_id is None:
            _watch(root, near)
        elif (file := _owner(root, near, custom_id)) is not None:
            record(root, reported, file)
            repeating.append(reported.id)
    return repeating


def record(root: Root, reported: BatchObject, file: RequestFile) -> None:
    """Record a batch that repeats the one of a file. Its answers are kept, and it is reported as paid twice."""
    with root.ledger.write() as tx:
        record_in(tx, reported, file)


def record_in(tx: Transaction, reported: BatchObject, file: RequestFile, *, paid_twice: bool = True) -> None:
    """Record it in an open transaction, see `record`. It is not paid twice if no other file has its requests."""
    if batches.by_id(tx, reported.id) is None:
        reason = "something between here and the API sent the file twice"
        reason += ": these requests are paid twice" if paid_twice else " and showed the second reply, a refusal"
        batches.note_late(tx, reported, file.id, reason, paid_twice=paid_twice)


def near_files(root: Root, reported: BatchObject) -> list[RequestFile]:
    """Return files whose batch was created while another batch of the same count was."""
    with root.ledger.read() as tx:
        near = files.sent_near(tx, reported.total, reported.created_at, NEAR_SECONDS)
        own = [(file, batch) for file in near for batch in batches.of_file(tx, file.id)]
    return [file for file, batch in own if _is_ours(batch) and _may_repeat(root, batch, reported)]


def _is_ours(batch: Batch) -> bool:
    return batch.file_id is not None and not batch.paid_twice and not batch.provisional


def _may_repeat(root: Root, ours: Batch, reported: BatchObject) -> bool:
    """Whether a batch was created during our upload: after its anchor, and before its reply was here.

    The server's clock is not ours, but the upload took equally long by both. Other programs in the workspace, and
    other roots with the same rows, create their batches at other times.
    """
    with root.ledger.read() as tx:
        intent = files.current_intent(tx, ours.file_id or "")
    created_at = ours.created_at or 0.0
    earliest, took = created_at - NEAR_SECONDS, _UPLOAD_SECONDS
    if intent is not None and intent.last_byte_at is not None:
        took = intent.last_byte_at - intent.started_at
    if intent is not None and intent.anchor_created_at is not None:
        earliest = max(earliest, intent.anchor_created_at)
    was_there = intent is not None and reported.id in intent.excluded
    return not was_there and earliest <= reported.created_at <= created_at + took


def _owner(root: Root, near: list[Batch], custom_id: str) -> RequestFile | None:
    """Return the file that has a request with this custom_id."""
    for batch in near:
        with root.ledger.read() as tx:
            file = files.by_id(tx, batch.file_id or "")
        if KnownRequests.read(root, file).proves(custom_id, root.mark):
            return file
    return None


def _watch(root: Root, own: list[Batch]) -> None:
    with root.ledger.write() as tx:
        for batch in own:
            files.watch(tx, batch.file_id or "")
