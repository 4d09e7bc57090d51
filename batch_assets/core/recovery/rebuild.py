"""Rebuild a lost ledger from the manifests, request files, receipts and responses under the root.

A receipt shows which batch a request file became, and a response file shows the answers. A request file with
neither is in doubt: like any other file in doubt, it is looked for in the API's list of batches before it may be
sent.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from batch_assets.core.errors import EndpointMismatchError
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Transaction, files, pilots, rescues, restore, submissions
from batch_assets.core.ledger.columns import FileColumns, SubmissionColumns
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.ledger.endpoint import Endpoint
from batch_assets.core.ledger.pilots import Pilot
from batch_assets.core.ledger.states import FileState, HoldReason
from batch_assets.core.recovery.found_files import (
    FoundSubmission,
    holds_submissions,
    pipelines_of,
    set_copied_receipts_aside,
    submissions_of,
)
from batch_assets.core.recovery.lost_files import with_states
from batch_assets.core.recovery.lost_pipeline import LostFile, LostPipeline
from batch_assets.core.recovery.root_file import ROOT_FILE
from batch_assets.core.settings import Settings
from batch_assets.core.text import count, counts

_log = logging.getLogger("batch_assets")


def has_ledger(settings: Settings) -> bool:
    """Whether there is a ledger to read, or a lost one to rebuild. Always true for a database server.

    Does not create a database file.
    """
    url = parse_url(settings.ledger_url)
    if url.get_backend_name() != "sqlite" or Path(url.database or "").is_file():
        return True
    return was_used(Storage.of(settings))


def was_used(storage: Storage) -> bool:
    """Whether a root had a ledger: it has an id, or submissions."""
    return storage.exists(ROOT_FILE) or holds_submissions(storage)


@dataclass(frozen=True)
class Known:
    """Ids that a ledger has already: those of submissions, request files and batches."""

    submissions: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    batches: frozenset[str] = frozenset()


NOTHING_KNOWN = Known()


def find_lost(storage: Storage) -> Callable[[Transaction], None] | None:
    """Read everything that a new ledger must record about the submissions under a root.

    Returns:
        A function that writes it into the ledger; `None` if the root has no submissions.

    Raises:
        EndpointMismatchError: When the receipts name different endpoints or organizations.
    """
    found = {pipeline: submissions_of(storage, pipeline) for pipeline in pipelines_of(storage)}
    set_copied_receipts_aside([submission for submissions, _ in found.values() for submission in submissions])
    pipelines = [with_states(storage, pipeline, *files) for pipeline, files in found.items()]
    pipelines = [pipeline for pipeline in pipelines if pipeline.submissions]
    if not pipelines:
        return None
    endpoint = _endpoint(storage, [file for pipeline in pipelines for file in pipeline.files])

    def write(tx: Transaction) -> None:
        if endpoint is not None:
            restore.endpoint(tx, endpoint)
        for pipeline in pipelines:
            write_pipeline(tx, pipeline)
            # A batch whose responses are stored is not collected again, so nothing else removes its download.
            storage.remove_leftovers(pipeline.submissions[0].pipeline, "responses")
        _log.warning(_summary(storage, pipelines))

    return write


def _endpoint(storage: Storage, files: list[LostFile]) -> Endpoint | None:
    """The endpoint that the receipts name; `None` without receipts."""
    endpoint: Endpoint | None = None
    first = ""
    for file in files:
        receipt = file.part.receipt
        if receipt is None:
            continue
        name = storage.uri(*file.part.stored.receipt_parts())
        named = Endpoint(receipt.base_url, receipt.organization, receipt.workspace)
        if endpoint is None:
            endpoint, first = named, name
        if not _agree(endpoint, named):
            raise EndpointMismatchError(
                f"The ledger is gone, and the receipts do not agree on the API this root belongs to: {first} "
                f"names {_described(endpoint)}, {name} names {_described(named)}. Move the submissions of one of "
                "them into another root."
            )
        endpoint = Endpoint(
            endpoint.base_url, endpoint.organization or named.organization, endpoint.workspace or named.workspace
        )
    return endpoint


def _agree(one: Endpoint, other: Endpoint) -> bool:
    """Whether two receipts may be of the same endpoint. Not all of them name an organization and a workspace."""
    return (
        one.base_url == other.base_url
        and (None in (one.organization, other.organization) or one.organization == other.organization)
        and (None in (one.workspace, other.workspace) or one.workspace == other.workspace)
    )


def _described(endpoint: Endpoint) -> str:
    parts = (("organization", endpoint.organization), ("workspace", endpoint.workspace))
    known = ", ".join(f"{kind} {value}" for kind, value in parts if value is not None)
    return f"{endpoint.base_url} ({known})" if known else endpoint.base_url


def write_pipeline(tx: Transaction, lost: LostPipeline, known: Known = NOTHING_KNOWN) -> None:
    """Write what a pipeline's files show into the ledger.

    Args:
        tx: The transaction.
        lost: What the files show.
        known: What the ledger has already. It is left as it is.
    """
    unsent = {file.id for file in lost.files if file.state is FileState.UNRESOLVED}
    in_force = submissions.all_newest(tx, lost.submissions[0].pipeline)
    newest = {submission.partition: submission.created_at for submission in in_force}
    by_submission: dict[str, list[LostFile]] = defaultdict(list)
    for file in lost.files:
        by_submission[file.submission.id].append(file)
    for submission in lost.submissions:
        if submission.id in known.submissions:
            continue
        own = by_submission[submission.id]
        waits = lost.waits.get(submission.id, {file.id for file in own})
        values = _values(tx, submission)
        if not submission.manifest.requests:  # a stand-in for a damaged manifest
            values["requests"] = sum(file.requests for file in own)
        values["announced_at"] = tx.now if submission.id in lost.complete else None
        if newest.get(submission.partition, 0.0) > submission.created_at:
            values["seq"] = submissions.seq_before_all(tx)
        why = f"its manifest lists {len(submission.manifest.files)} files"
        # A submission that may still have to be sent waits for a user. Others continue automatically.
        restore.add_submission(tx, submission.id, why, has_begun=not waits & unsent, **values)
        _write_pilot(tx, submission)
    for file in lost.files:
        if file.id not in known.files:
            _write_file(tx, file)
    pipeline = lost.submissions[0].pipeline
    for spare, owner in lost.spare:
        if spare.batch_id in known.batches:
            continue
        why = "its responses are stored" if owner is None else f"its responses answer the requests of {owner.id}"
        file_id = owner.id if owner is not None else None
        restore.add_collected(
            tx,
            spare.batch_id,
            file_id,
            pipeline,
            spare.counts,
            why,
            paid_twice=owner is not None,
            ended_at=spare.ended_at,
        )
    _write_live_calls(tx, lost, known)
    write_resent(tx, lost, {file.id for file in lost.files} - known.files)
    for submission_id, waits in lost.waits.items():
        if submission_id in known.submissions:  # only the files that were added
            waits = waits - known.files
        submissions.add_waits(tx, submission_id, waits)


def _write_live_calls(tx: Transaction, lost: LostPipeline, known: Known) -> None:
    """Record live calls. What they asked is not asked by another live call."""
    for responses, owner in lost.live:
        if responses.batch_id not in known.batches:
            file, why = files.by_id(tx, owner.id), f"the answers of live calls for {owner.id} are stored"
            rescues.restore_stored(tx, file, responses.batch_id, responses.counts, responses.paid_at, why)
    ids = {file.id for file in lost.files}
    for group_id, header in lost.live_groups.items():
        if header.file_id in ids:
            file = files.by_id(tx, header.file_id)
            rescues.restore(tx, file, header.group(group_id, file.pipeline))


def write_resent(tx: Transaction, lost: LostPipeline, file_ids: Collection[str]) -> None:
    """Record the uploads of files that were sent again and whose batch is not among those that were found since.

    Args:
        tx: The transaction. The batches are recorded: none of them takes the reservation of such an upload.
        lost: What the files show.
        file_ids: The ids of the files.
    """
    found_since = Counter(owner.id for _, owner in lost.spare if owner is not None)
    for file in lost.files:
        if file.id in file_ids:
            uploads = file.part.resent[: max(0, len(file.part.resent) - found_since[file.id])]
            for upload in uploads:
                restore.add_resent(tx, file.id, bytes=file.bytes, **upload.columns())


def _write_pilot(tx: Transaction, submission: FoundSubmission) -> None:
    """Record the pilot of a submission. It is judged again: whether a user has approved the rest is lost."""
    entry = submission.manifest.pilot
    if entry is not None and entry.files is not None:
        files = tuple(entry.files)
        pilots.record(tx, Pilot(submission.pipeline, entry.prompt, submission.id, files, entry.terms))


def _values(tx: Transaction, submission: FoundSubmission) -> SubmissionColumns:
    manifest = submission.manifest
    return {
        "pipeline": submission.pipeline,
        "partition": submission.partition,
        "created_at": submission.created_at or tx.now,
        "rows": manifest.rows,
        "rejected": manifest.rejected,
        "requests": manifest.requests,
        "max_attempts": manifest.max_attempts,
        "follow_ups": manifest.follow_ups.as_text() if manifest.follow_ups is not None else None,
        "written": manifest.requests_written,
        "headers": json.dumps(manifest.headers),
        "max_requests": manifest.max_requests,
        "max_bytes": manifest.max_bytes,
        "fresh_after": submission.fresh_after,
        "left_out": manifest.left_out or 0,
        "pilot": manifest.pilot.prompt if manifest.pilot is not None else None,
    }


def _write_file(tx: Transaction, file: LostFile) -> None:
    headers, listed = file.headers(), file.part.listed
    # Without a checksum, each line is checked before the file is sent: those of unknown headers are refused.
    are_known = headers is not None or not file.submission.manifest.header_sets
    # What it waited for is not known either if its manifest cannot be read: only a user lets it go.
    hold = HoldReason.CONFIRM if not file.submission.is_listed else None
    values: FileColumns = {
        "submission_id": file.submission.id,
        "pipeline": file.submission.pipeline,
        "partition": file.submission.partition,
        "name": str(file.part.name),
        "requests": file.requests,
        "bytes": file.bytes,
        "attempt": max(1, file.attempt),
        "error": file.why if file.state in (FileState.UNRESOLVED, FileState.REFUSED) else None,
        "headers": json.dumps(headers) if headers is not None else None,
        "checksum": listed.checksum if listed is not None and are_known else None,
        "hold": listed.hold_reason if listed is not None else hold,
        "stub": listed.stub if listed is not None else None,
        "breakpoint": listed.breakpoint_json if listed is not None else None,
        "follows": file.has_follow_ups or None,
    }
    restore.add_file(tx, file.id, file.state, file.why, **values)
    receipt = file.part.receipt
    batch, replied = (receipt.batch, receipt.replied is True) if receipt is not None else (None, False)
    pipeline, answers = file.submission.pipeline, file.responses
    if answers is not None:
        restore.add_collected(
            tx,
            answers.batch_id,
            file.id,
            pipeline,
            answers.counts,
            file.why,
            created_at=batch.created_at if batch is not None else None,
            expires_at=batch.expires_at if batch is not None else None,
            ended_at=answers.ended_at,
            replied=replied,
        )
    elif batch is not None:
        restore.add_open(tx, file.id, pipeline, batch, file.why, replied=replied)


def _summary(storage: Storage, pipelines: list[LostPipeline]) -> str:
    files = [file for pipeline in pipelines for file in pipeline.files]
    submissions = count(sum(len(pipeline.submissions) for pipeline in pipelines), "submission")
    states = Counter(file.state for file in files)
    state_counts = counts(dict(sorted(states.items())))
    lines = [
        f"The ledger of {storage.url} was lost. It is rebuilt from {submissions}; request files: {state_counts}."
    ]
    if states[FileState.UNRESOLVED]:
        lines.append(
            "It is unknown whether the unresolved ones were sent. They are looked for in the API's list of "
            "batches, and sent again only if they are not in it for the grace period: the next run of the stage "
            "`batches` does so."
        )
    if states[FileState.REFUSED]:
        lines.append("The refused ones are missing: their requests have to be built again.")
    lines += [f"{problem}." for pipeline in pipelines for problem in pipeline.problems]
    lines.append("The record of earlier refusals, stops, cancels and sent notices is lost.")
    return " ".join(lines)
