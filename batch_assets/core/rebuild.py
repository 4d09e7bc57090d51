"""A lost ledger, made again from what lies under the root: manifests, request files, receipts, responses.

A receipt says which batch a request file became, a response file what was answered. A request file with
neither is in doubt: it is looked for in the API's own list like any other, and never sent straight away.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from batch_assets.core.digests import Digests, DigestSet, position_in
from batch_assets.core.documents import damaged
from batch_assets.core.errors import EndpointMismatchError
from batch_assets.core.index import DIGEST, RequestIndex
from batch_assets.core.ledger import Transaction, restore, submissions
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.remains import (
    FoundPart,
    FoundResponses,
    FoundSubmission,
    holds_submissions,
    pipelines_of,
    responses_of,
    submissions_of,
    table_is_complete,
)
from batch_assets.core.response_store import FAILED, SUCCEEDED, Standing, digest_array, load_standing
from batch_assets.core.root import refusal_parts
from batch_assets.core.settings import Settings
from batch_assets.core.storage import Storage

# Manifests of versions before these were written down; nothing but retries asks for them.
_MAX_REQUESTS, _MAX_BYTES = 100_000, 250_000_000
_IN_DOUBT = "the ledger was lost, and no receipt says whether this was sent"
_log = logging.getLogger("batch_assets")


@dataclass
class _File:
    """A request file with what its remains say of it.

    Attributes:
        state: as in the ledger.
        why: what says so.
    """

    submission: FoundSubmission
    part: FoundPart
    digests: Digests
    requests: int
    bytes: int
    attempt: int
    state: str
    why: str
    responses: FoundResponses | None = None

    @property
    def id(self) -> str:
        return f"{self.submission.id}/{self.part.name}"


@dataclass
class _Found:
    """What is known of a pipeline.

    Attributes:
        files: in the order in which they were written.
        spare: responses to requests of no file here, or to such that another batch answered as well.
        waits: for each submission in force the files its rows wait on, its own included.
        complete: submissions in force whose table is there and has every row's final result.
    """

    submissions: list[FoundSubmission]
    files: list[_File] = field(default_factory=list)
    spare: list[tuple[FoundResponses, _File | None]] = field(default_factory=list)
    waits: dict[str, set[str]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)


def is_there(settings: Settings) -> bool:
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
    found = [_find(storage, pipeline) for pipeline in pipelines_of(storage)]
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


def _find(storage: Storage, pipeline: str) -> _Found:
    found = _Found(submissions_of(storage, pipeline))
    if not found.submissions:
        return found
    responses = responses_of(storage, pipeline)
    claimed = {
        part.receipt.batch.id
        for submission in found.submissions
        for part in submission.parts
        if part.receipt is not None
    }
    for submission in found.submissions:
        found.files += [_file(submission, part, responses) for part in submission.parts]
    for file in found.files:
        refusal = responses.get(refusal_parts(pipeline, file.id)[-1].removesuffix(".parquet"))
        if refusal is not None and file.state == "unresolved":
            claimed.add(refusal.batch_id)
            file.state, file.why = "collected", "the stored response is the refusal of its only request"
    _claim(found, {id_: responses[id_] for id_ in responses.keys() - claimed})
    if any(file.state == "unresolved" for file in found.files):
        _set_aside(found, load_standing(storage, pipeline), responses.values())
    for submission in {s.partition: s for s in found.submissions}.values():
        own = {file.id for file in found.files if file.submission is submission}
        found.waits[submission.id] = own | _others(storage, submission, found.files)
        if table_is_complete(storage, pipeline, submission.partition, submission.id):
            found.complete.add(submission.id)
    return found


def _file(submission: FoundSubmission, part: FoundPart, responses: dict[str, FoundResponses]) -> _File:
    """What its receipt says of a request file."""
    nothing: Digests = np.empty(0, dtype="S16")
    listed = part.listed or {"requests": 0, "bytes": 0, "attempt": 0}
    numbers = listed["requests"], listed["bytes"], listed["attempt"]
    if part.receipt is None:
        if not part.is_there:
            why = f"the request file is gone: materialize {submission.pipeline}/requests again"
            return _File(submission, part, nothing, *numbers, "refused", why)
        digests, size = part.contents()
        return _File(submission, part, digests, len(digests), size, listed["attempt"], "unresolved", _IN_DOUBT)
    batch = part.receipt.batch
    requests, attempt = batch.total, part.receipt.attempt
    answers = responses.get(batch.id)
    why = f"its receipt names {batch.id}"
    if answers is not None and len(answers.digests) == requests:
        why = f"{why}, whose responses are stored"
        return _File(
            submission, part, answers.digests, requests, listed["bytes"], attempt, "collected", why, answers
        )
    digests, size = part.contents() if part.is_there else (nothing, listed["bytes"])
    return _File(submission, part, digests, requests, size, attempt, "submitted", why)


def _claim(found: _Found, unclaimed: dict[str, FoundResponses]) -> None:
    """Responses whose batch no receipt names belong to the file with the same requests in the same order."""
    by_content: dict[bytes, list[_File]] = defaultdict(list)
    for file in found.files:
        by_content[file.digests.tobytes()].append(file)
    for responses in sorted(unclaimed.values(), key=lambda responses: responses.ended_at):
        files = by_content[responses.digests.tobytes()]
        free = [f for f in files if f.state == "unresolved" and f.attempt in (0, responses.attempt)]
        if not free:
            found.spare.append((responses, files[-1] if files else None))
            continue
        file = free[-1]
        file.state, file.attempt, file.responses = "collected", responses.attempt, responses
        file.why = f"the stored responses of {responses.batch_id} are to its requests"


def _set_aside(found: _Found, standing: Standing, answered: Iterable[FoundResponses]) -> None:
    """Tells files in doubt from those that were given up unsent.

    No request is ever in two files that were sent or may still be. So a file without receipt or responses
    that shares a request with one that was sent, was answered or was written later, in no earlier attempt,
    was set aside, or never registered: nobody may send it.
    """
    taken: dict[int, DigestSet] = defaultdict(DigestSet)
    for responses in answered:
        taken[responses.attempt].add(responses.digests)
    for file in found.files:
        if file.state in ("submitted", "collected"):
            taken[file.attempt].add(file.digests)
    in_doubt = [file for file in found.files if file.state == "unresolved"]
    by_id = {file.id: file for file in found.files}
    for file in in_doubt:
        if file.attempt == 0:  # no manifest lists what retries added, and the halves of files that were cut
            whole = by_id.get(_cut_from(file.id) or "")
            file.attempt = whole.attempt if whole is not None else _next_attempt(standing, file.digests)
    for file in reversed(in_doubt):
        whole_id = _cut_from(file.id)
        if whole_id in by_id and not all(f"{whole_id[:-6]}-{half}.jsonl" in by_id for half in "12"):
            file.state, file.why = "superseded", "its other half was never written"
            continue
        _, how, _ = standing.of(file.digests)
        known = standing.position(file.digests) >= 0
        over = file.attempt > file.submission.manifest["max_attempts"] and file.part.listed is None
        settled = bool((known & ((how == SUCCEEDED) | (how == FAILED))).any())
        others = (digests for tries, digests in taken.items() if tries >= file.attempt)
        if over or settled or any(digests.contains(file.digests).any() for digests in others):
            file.state = "superseded"
            file.why = "its requests were answered, or lie in a file that was sent or written later"
        else:
            taken[file.attempt].add(file.digests)


def _cut_from(file_id: str) -> str | None:
    """The file that the API found too large and whose half this is, None for one that was not cut."""
    stem = file_id.removesuffix(".jsonl")
    return f"{stem[:-2]}.jsonl" if stem.endswith(("-1", "-2")) else None


def _next_attempt(standing: Standing, digests: Digests) -> int:
    _, _, attempt = standing.of(digests)
    return int(attempt.max(initial=0)) + 1


def _others(storage: Storage, submission: FoundSubmission, files: list[_File]) -> set[str]:
    """Files of other submissions that a submission's rows wait on, or that brought their answers."""
    others = [
        file
        for state in ("unresolved", "submitted", "collected")  # what is on its way comes before what was answered
        for file in files
        if file.state == state and len(file.digests)
    ]
    if not others:
        return set()
    digests = np.concatenate([file.digests for file in others])
    owners = np.concatenate([np.full(len(file.digests), at, np.int32) for at, file in enumerate(others)])
    order = np.argsort(digests, kind="stable")
    digests, owners = digests[order], owners[order]
    used = np.zeros(len(others), dtype=bool)
    index = RequestIndex(storage, submission.pipeline, submission.partition, submission.id)
    for rows in index.slices([DIGEST]):
        position = position_in(digests, digest_array(rows.column(0).drop_null()))
        used[owners[position[position >= 0]]] = True
    return {file.id for file, wanted in zip(others, used.tolist(), strict=True) if wanted}


def _endpoint(storage: Storage, files: list[_File]) -> tuple[str, str | None] | None:
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


def _write(tx: Transaction, found: _Found) -> None:
    unsent = {file.id for file in found.files if file.state == "unresolved"}
    for submission in found.submissions:
        waits = found.waits.get(submission.id, {file.id for file in found.files if file.submission is submission})
        values = _values(tx, submission)
        # What may still have to be sent is a person's business again, the rest goes on by itself.
        values["began_at"] = None if waits & unsent else tx.now
        values["announced_at"] = tx.now if submission.id in found.complete else None
        restore.add_submission(tx, values, f"its manifest lists {len(submission.manifest['files'])} files")
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
        "id": found.id,
        "pipeline": found.pipeline,
        "partition": found.partition,
        "created_at": found.created_at or tx.now,
        **{name: manifest[name] for name in ("rows", "rejected", "requests", "max_attempts")},
        "written": sum(entry["requests"] for entry in manifest["files"]),
        "headers": json.dumps(manifest["headers"]),
        "max_requests": manifest.get("max_requests", _MAX_REQUESTS),
        "max_bytes": manifest.get("max_bytes", _MAX_BYTES),
    }


def _write_file(tx: Transaction, file: _File) -> None:
    values = {
        "id": file.id,
        "submission_id": file.submission.id,
        "pipeline": file.submission.pipeline,
        "partition": file.submission.partition,
        "name": file.part.name,
        "requests": file.requests,
        "bytes": file.bytes,
        "attempt": max(1, file.attempt),
        "state": file.state,
        "error": file.why if file.state in ("unresolved", "refused") else None,
    }
    restore.add_file(tx, values, file.why)
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


def _summary(storage: Storage, found: list[_Found]) -> str:
    files = [file for pipeline in found for file in pipeline.files]
    count = sum(len(pipeline.submissions) for pipeline in found)
    states = Counter(file.state for file in files)
    said = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"
    lines = [
        f"The ledger of {storage.url} was lost. It is rebuilt from {count} submissions; request files: {said}."
    ]
    if states["unresolved"]:
        lines.append(
            "Of the unresolved ones nobody can tell here whether they were sent. They are looked for in the API's "
            "list of batches, and sent again only when it shows none for the grace period: run `batches` again."
        )
    if states["refused"]:
        lines.append("Of the refused ones the request file is gone: materialize `requests` again.")
    lines.append("What was refused, stopped or canceled before, and who had been told, cannot be known any more.")
    return " ".join(lines)
