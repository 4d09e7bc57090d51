"""Pilots: a small batch of a prompt's requests. The others are held until its answers are judged.

A pipeline has at most one pilot for each prompt. Submissions name the prompt whose pilot their files wait for.
A pilot that was replaced before it was sent has a successor, for which they wait from then on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from batch_assets.core.ledger import files, holds
from batch_assets.core.ledger.collected import last_collection
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.records import RequestFile, to_records
from batch_assets.core.ledger.states import FileState, HoldReason, PilotVerdict
from batch_assets.core.ledger.submissions import newest_seqs
from batch_assets.core.ledger.tables import pilot, request_file, submission, wait

WAITS = "it waits for the pilot of its prompt"
"""Why a file is held until a pilot is judged."""

CANNOT_WAIT = (
    "the pilot of its prompt was canceled, and no build takes another: several partitions need these requests"
)
"""Why a user lets a file go that waits for a pilot which no build takes."""


@dataclass(frozen=True)
class PilotTerms:
    """By what the answers of a pilot are judged.

    Attributes:
        asks: Whether a user lets the rest go in any case.
        max_failed: The share of requests that may fail.
        max_invalid: The share of answers that may be refused, cut off, or not match the output schema.
        low: The least that it was estimated to cost, in picodollars; `None` if that was not known.
        high: The most that it was estimated to cost, in picodollars; `None` if that was not known.
    """

    asks: bool
    max_failed: float
    max_invalid: float
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Pilot:
    """The pilot of a prompt.

    Attributes:
        pipeline: The name of the pipeline.
        prompt: The digest of the prompt.
        submission_id: The submission of its first file.
        file_ids: The ids of its request files.
        terms: By what its answers are judged.
        verdict: What became of it; `None` if it is not judged.
        why: The reason for the verdict, for users.
        looked_seq: The last collection when it could not be judged yet; `None` if that was not tried.
    """

    pipeline: str
    prompt: str
    submission_id: str
    file_ids: tuple[str, ...]
    terms: PilotTerms
    verdict: PilotVerdict | None = None
    why: str | None = None
    looked_seq: int | None = None


@dataclass(frozen=True)
class PilotState:
    """A pilot at one moment.

    Attributes:
        pilot: The pilot.
        files: Its request files, or the parts that have replaced them.
        collected: The last collection of the pipeline, as its number in the history.
    """

    pilot: Pilot
    files: tuple[RequestFile, ...]
    collected: int

    @property
    def is_due(self) -> bool:
        """Whether the files that wait for it are to be let go or left to a user: it is judged, or can be."""
        if self.pilot.verdict is not None:
            return not self.is_gone
        is_new = self.pilot.looked_seq is None or self.collected > self.pilot.looked_seq
        return is_new and not self.is_gone and all(not file.state.in_flight for file in self.files)

    @property
    def is_gone(self) -> bool:
        """Whether it brings no answer any more: it was replaced, refused or canceled."""
        if self.pilot.verdict is not None:
            return self.pilot.verdict is PilotVerdict.CANCELED
        return all(file.state.let_go for file in self.files)

    @property
    def collected_files(self) -> list[RequestFile]:
        """Those of its files whose answers are stored; none before all of them are sent and settled."""
        is_settled = all(not file.state.in_flight for file in self.files)
        return [file for file in self.files if is_settled and file.state is FileState.COLLECTED]


def record(tx: Transaction, new: Pilot) -> None:
    """Record the pilot of a prompt, in place of an earlier one."""
    is_it = sa.and_(pilot.c.pipeline == new.pipeline, pilot.c.prompt == new.prompt)
    tx.execute(sa.delete(pilot).where(is_it))
    tx.execute(
        sa.insert(pilot).values(
            pipeline=new.pipeline,
            prompt=new.prompt,
            submission_id=new.submission_id,
            files=json.dumps(new.file_ids),
            terms=json.dumps(asdict(new.terms)),
        )
    )


def of_prompt(tx: Transaction, pipeline: str, prompt: str) -> PilotState | None:
    """Return the pilot of a prompt; `None` if it has none."""
    is_it = sa.and_(pilot.c.pipeline == pipeline, pilot.c.prompt == prompt)
    row = tx.execute(sa.select(pilot).where(is_it)).first()
    if row is None:
        return None
    found = Pilot(
        row.pipeline,
        row.prompt,
        row.submission_id,
        tuple(json.loads(row.files)),
        PilotTerms(**json.loads(row.terms)),
        row.verdict,
        row.why,
        row.looked_seq,
    )
    current = [
        part for file_id in found.file_ids if files.known(tx, file_id) for part in files.in_place_of(tx, file_id)
    ]
    return PilotState(found, tuple(files.by_id(tx, file_id) for file_id in current), last_collection(tx, pipeline))


def waited_for(tx: Transaction, waiting: Collection[RequestFile]) -> dict[str, PilotState]:
    """Return the pilots that some request files wait for, by the ids of the files.

    Args:
        tx: The transaction.
        waiting: The files. Those of submissions without a pilot are left out.
    """
    prompts: dict[str, tuple[str, str]] = {}
    for chunk in id_chunks(sorted({file.submission_id for file in waiting})):
        columns = submission.c.id, submission.c.pipeline, submission.c.pilot
        statement = sa.select(*columns).where(submission.c.id.in_(chunk), submission.c.pilot.is_not(None))
        prompts |= {row.id: (row.pipeline, row.pilot) for row in tx.execute(statement)}
    states = {key: state for key in set(prompts.values()) if (state := of_prompt(tx, *key)) is not None}
    by_file = {
        file.id: states.get(prompts[file.submission_id]) for file in waiting if file.submission_id in prompts
    }
    return {file_id: state for file_id, state in by_file.items() if state is not None}


def waiting_for(tx: Transaction, judged: Pilot) -> list[RequestFile]:
    """Return the request files that are held until a pilot is judged."""
    statement = (
        sa.select(request_file)
        .join(submission, submission.c.id == request_file.c.submission_id)
        .where(
            request_file.c.state == FileState.HELD,
            request_file.c.hold == HoldReason.PILOT,
            submission.c.pipeline == judged.pipeline,
            submission.c.pilot == judged.prompt,
        )
        .order_by(request_file.c.id)
    )
    return to_records(RequestFile, tx.execute(statement))


def looked(tx: Transaction, state: PilotState) -> None:
    """Record that a pilot cannot be judged before something else is collected."""
    tx.execute(sa.update(pilot).where(*_is(state.pilot)).values(looked_seq=state.collected))


def look_again(tx: Transaction, pipeline: str) -> None:
    """Let the pilots of a pipeline be judged again: what a submission sends again or follows has changed."""
    open_ones = pilot.c.pipeline == pipeline, pilot.c.verdict.is_(None), pilot.c.looked_seq.is_not(None)
    tx.execute(sa.update(pilot).where(*open_ones).values(looked_seq=None))


def judge(tx: Transaction, judged: Pilot, verdict: PilotVerdict, why: str) -> list[RequestFile]:
    """Record a verdict, and let the files go that wait for it, or leave them to a user.

    After `CANCELED` they wait for the next pilot. Nothing changes if another process has judged it, or if it was
    replaced meanwhile.

    Args:
        tx: The transaction.
        judged: The pilot.
        verdict: What becomes of it.
        why: The reason, for users.

    Returns:
        The files that waited for it.
    """
    values = {"verdict": verdict, "why": why}
    if judged.verdict is None:
        is_same = (*_is(judged), pilot.c.verdict.is_(None))
        if not tx.execute(sa.update(pilot).where(*is_same).values(**values)).rowcount:
            return []
    if verdict is PilotVerdict.CANCELED:
        return []
    waiting = waiting_for(tx, judged)
    if verdict is PilotVerdict.GO:
        holds.release(tx, waiting, why)
    else:
        hold_for(tx, waiting, HoldReason.CONFIRM, why)
    return waiting


def hold_for(tx: Transaction, held: Sequence[RequestFile], reason: HoldReason, why: str) -> None:
    """Hold files for another reason than they are held for now."""
    holds.release(tx, held, why)
    holds.hold(tx, held, reason, why)


def leave_to_user(tx: Transaction, pipeline: str, waited_on: Collection[str]) -> None:
    """Let a user decide about files that no build can send with another pilot, after theirs was canceled.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        waited_on: The ids of files that a submission without a pilot of its own waits on.
    """
    waiting = [file for file in files.by_ids(tx, waited_on) if file.is_held_for_pilot]
    hold_for(tx, without_successor(tx, pipeline, waiting), HoldReason.CONFIRM, CANNOT_WAIT)


def without_successor(tx: Transaction, pipeline: str, waiting: Collection[RequestFile]) -> list[RequestFile]:
    """Return the files whose pilot is gone, and that no build replaces: several submissions wait on them."""
    states = waited_for(tx, waiting)
    without = sorted(file.id for file in waiting if file.id not in states or states[file.id].is_gone)
    several: set[str] = set()
    for some in id_chunks(without):
        in_force = submission.c.seq.in_(newest_seqs(pipeline)), wait.c.file_id.in_(some)
        waits = (
            sa.select(wait.c.file_id).join(submission, submission.c.id == wait.c.submission_id).where(*in_force)
        )
        several.update(tx.execute(waits.group_by(wait.c.file_id).having(sa.func.count() > 1)).scalars())
    return [file for file in waiting if file.id in several]


def approve(tx: Transaction, approved: Pilot) -> None:
    """Record that a user lets the requests of a prompt go, whatever its pilot brought."""
    tx.execute(sa.update(pilot).where(*_is(approved)).values(verdict=PilotVerdict.GO))


def replace_file(tx: Transaction, file: RequestFile, new_id: str) -> None:
    """Record that a file without erased requests has replaced an unsent one, which may be of a pilot."""
    for row in tx.execute(sa.select(pilot).where(pilot.c.pipeline == file.pipeline)).all():
        ids = json.loads(row.files)
        if file.id in ids:
            is_it = sa.and_(pilot.c.pipeline == row.pipeline, pilot.c.prompt == row.prompt)
            changed = [new_id if file_id == file.id else file_id for file_id in ids]
            tx.execute(sa.update(pilot).where(is_it).values(files=json.dumps(changed)))


def _is(known: Pilot) -> tuple[sa.ColumnElement[bool], ...]:
    """Whether a row is that of a pilot, and not of its successor."""
    return (
        pilot.c.pipeline == known.pipeline,
        pilot.c.prompt == known.prompt,
        pilot.c.submission_id == known.submission_id,
    )
