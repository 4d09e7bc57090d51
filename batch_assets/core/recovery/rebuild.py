"""A lost ledger, made again from what lies under the root: manifests, request files, receipts, responses.

A receipt says which batch a request file became, a response file what was answered. A request file with
neither is in doubt: it is looked for in the API's own list like any other, and never sent straight away.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_assets.core.errors import EndpointMismatchError
from batch_assets.core.io.json_files import damaged
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Transaction, restore, submissions
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.ledger.states import FileState
from batch_assets.core.recovery.found_files import FoundSubmission, holds_submissions, pipelines_of
from batch_assets.core.recovery.lost_files import LostFile, LostPipeline, find_pipeline
from batch_assets.core.settings import Settings

_log = logging.getLogger("batch_assets")


def has_ledger(settings: Settings) -> bool:
    """Whether there is a ledger to read, or a lost one to make again. A database server is taken at its word.

    A file is not made for the sake of looking into it.
    """
    url = parse_url(settings.ledger_url)
    if url.get_backend_name() != "sqlite" or Path(url.database or "").is_file():
        return True
    return holds_submissions(Storage(settings.root))


def find_lost(storage: Storage) -> Callable[[Transaction], None] | None:
    """Reads what a new ledger should know of the submissions under its root.

    Returns:
        What writes it into the ledger; None when nothing was ever submitted here.

    Errors:
        DamagedFileError: a file of the root is not as it was written.
        EndpointMismatchError: receipts name several endpoints.
    """
    found = [find_pipeline(storage, pipeline) for pipeline in pipelines_of(storage)]
    found = [pipeline for pipeline in found if pipeline.submissions]
    if not found:
        return None
    endpoint = _endpoint(storage, [file for pipeline in found for file in pipeline.files])

    def write(tx: Transaction) -> None:
        if endpoint is not None:
            restore.endpoint(tx, *endpoint)
        for pipeline in found:
            _write(tx, pipeline)
        _log.warning(_summary(storage, found))

    return write


def _endpoint(storage: Storage, files: list[LostFile]) -> tuple[str, str | None] | None:
    """(base URL, organization) that the receipts name; None without receipts."""
    batch_ids: dict[str, str] = {}
    bound: tuple[str, str | None] | None = None
    first = ""
    for file in files:
        receipt = file.part.receipt
        if receipt is None:
            continue
        name = storage.uri(*file.part.stored.receipt_parts())
        if (twin := batch_ids.setdefault(receipt.batch.id, name)) != name:
            raise damaged(name, f"it names {receipt.batch.id}, and so does {twin}")
        if bound is None:
            bound, first = (receipt.base_url, receipt.organization), name
        base_url, organization = bound
        if receipt.base_url != base_url or None is not receipt.organization != (
            organization or receipt.organization
        ):
            raise EndpointMismatchError(
                f"The ledger is gone, and the receipts do not agree on the API this root belongs to: {first} says "
                f"{_words(bound)}, {name} says {_words((receipt.base_url, receipt.organization))}. Move the "
                "submissions of one of them into a root of their own."
            )
        bound = base_url, organization or receipt.organization
    return bound


def _words(endpoint: tuple[str, str | None]) -> str:
    base_url, organization = endpoint
    return f"{base_url} (organization {organization})" if organization else base_url


def _write(tx: Transaction, found: LostPipeline) -> None:
    unsent = {file.id for file in found.files if file.state is FileState.UNRESOLVED}
    for submission in found.submissions:
        waits = found.waits.get(submission.id, {file.id for file in found.files if file.submission is submission})
        values = _values(tx, submission)
        values["announced_at"] = tx.now if submission.id in found.complete else None
        why = f"its manifest lists {len(submission.manifest.files)} files"
        # What may still have to be sent is a person's business again, the rest goes on by itself.
        restore.add_submission(tx, submission.id, why, has_begun=not waits & unsent, **values)
    for file in found.files:
        _write_file(tx, file)
    pipeline = found.submissions[0].pipeline
    for spare, owner in found.spare:
        why = "its responses are stored" if owner is None else f"its responses are to the requests of {owner.id}"
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
    for submission_id, waits in found.waits.items():
        submissions.add_waits(tx, submission_id, waits)


def _values(tx: Transaction, found: FoundSubmission) -> dict[str, Any]:
    """The columns of `submission`."""
    manifest = found.manifest
    return {
        "pipeline": found.pipeline,
        "partition": found.partition,
        "created_at": found.created_at or tx.now,
        **manifest.model_dump(include={"rows", "rejected", "requests", "max_attempts"}),
        "written": sum(entry.requests for entry in manifest.files),
        "headers": json.dumps(manifest.headers),
        "max_requests": manifest.max_requests,
        "max_bytes": manifest.max_bytes,
        "fresh_after": found.fresh_after,
        "left_out": manifest.left_out or 0,
    }


def _write_file(tx: Transaction, file: LostFile) -> None:
    values = {
        "submission_id": file.submission.id,
        "pipeline": file.submission.pipeline,
        "partition": file.submission.partition,
        "name": str(file.part.name),
        "requests": file.requests,
        "bytes": file.bytes,
        "attempt": max(1, file.attempt),
        "error": file.why if file.state in (FileState.UNRESOLVED, FileState.REFUSED) else None,
        "headers": json.dumps(headers) if (headers := file.headers()) is not None else None,
    }
    restore.add_file(tx, file.id, file.state, file.why, **values)
    batch = file.part.receipt.batch if file.part.receipt is not None else None
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
        )
    elif batch is not None:
        restore.add_open(tx, file.id, pipeline, batch, file.why)


def _summary(storage: Storage, found: list[LostPipeline]) -> str:
    files = [file for pipeline in found for file in pipeline.files]
    count = sum(len(pipeline.submissions) for pipeline in found)
    states = Counter(file.state for file in files)
    said = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"
    lines = [
        f"The ledger of {storage.url} was lost. It is rebuilt from {count} submissions; request files: {said}."
    ]
    if states[FileState.UNRESOLVED]:
        lines.append(
            "Of the unresolved ones nobody can tell here whether they were sent. They are looked for in the API's "
            "list of batches, and sent again only when it shows none for the grace period: run `batches` again."
        )
    if states[FileState.REFUSED]:
        lines.append("Of the refused ones the request file is gone: materialize `requests` again.")
    lines.append("What was refused, stopped or canceled before, and who had been told, cannot be known any more.")
    return " ".join(lines)
