"""Move request files, batches and submissions from state to state. Nothing else changes a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack, overload

import sqlalchemy as sa

from batch_assets.core.errors import MoveRefusedError
from batch_assets.core.ledger.bulk_history import HistoryLine, record_all
from batch_assets.core.ledger.columns import BatchColumns, FileColumns, SubmissionColumns
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.records import Submission, to_record
from batch_assets.core.ledger.states import (
    BatchMove,
    BatchState,
    EntityKind,
    FileMove,
    FileState,
    Move,
    SubmissionMove,
    SubmissionState,
)
from batch_assets.core.ledger.tables import batch, request_file, submission

_ENTITIES: dict[type[Move], tuple[EntityKind, sa.Table]] = {
    FileMove: (EntityKind.FILE, request_file),
    BatchMove: (EntityKind.BATCH, batch),
    SubmissionMove: (EntityKind.SUBMISSION, submission),
}
# The column with the time at which a submission came to a state.
_SINCE = {
    SubmissionState.REGISTERED: "created_at",
    SubmissionState.BEGAN: "began_at",
    SubmissionState.CANCELED: "canceled_at",
    SubmissionState.FINAL: "final_at",
}


@overload
def move(
    tx: Transaction,
    step: FileMove,
    entity_id: str,
    reason: str,
    *,
    history_states: tuple[str, str] | None = None,
    **values: Unpack[FileColumns],
) -> int: ...
@overload
def move(
    tx: Transaction,
    step: BatchMove,
    entity_id: str,
    reason: str,
    *,
    history_states: tuple[str, str] | None = None,
    **values: Unpack[BatchColumns],
) -> int: ...
@overload
def move(
    tx: Transaction,
    step: SubmissionMove,
    entity_id: str,
    reason: str,
    *,
    history_states: tuple[str, str] | None = None,
    **values: Unpack[SubmissionColumns],
) -> int: ...
def move(
    tx: Transaction,
    step: Move,
    entity_id: str,
    reason: str,
    *,
    history_states: tuple[str, str] | None = None,
    **values: Any,
) -> int:
    """Move a request file, a batch or a submission to its next state, and record the transition.

    Args:
        tx: The transaction.
        step: The move, from `states.py`. Its class determines the kind of entity that moves.
        entity_id: The id of the entity. A move from `None` creates it.
        reason: The reason, for the history.
        history_states: What the history calls the two states, if it is more precise than the ledger.
        **values: Other columns that change with the state.

    Returns:
        The number of the transition in the history.

    Raises:
        MoveRefusedError: When the move is not legal from the entity's state. Nothing was changed.
    """
    kind, table = _ENTITIES[type(step)]
    row = tx.execute(_locked(table).where(table.c.id == entity_id)).first()
    before = _state(step, row) if row is not None else None
    if before not in step.before:
        raise MoveRefusedError(kind, entity_id, before, step.after, step.event)
    values = _changes(tx, step, before) | values
    if row is None:
        tx.execute(sa.insert(table).values(id=entity_id, **values))
    else:
        tx.execute(sa.update(table).where(table.c.id == entity_id).values(values))
    recorded_before, recorded_after = history_states or (before, step.after)
    return tx.record(kind, entity_id, recorded_before, recorded_after, reason)


@dataclass(frozen=True)
class Moving:
    """One of several entities that make the same move.

    Attributes:
        entity_id: The id of the entity.
        reason: The reason, for the history.
        values: Other columns that change with the state. Each of the entities has the same columns.
        history_states: See `move`.
    """

    entity_id: str
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict)
    history_states: tuple[str, str] | None = None


def move_all(tx: Transaction, step: Move, moving: Sequence[Moving]) -> None:
    """Make the same move with many existing entities. The number of statements does not grow with their number.

    Args:
        tx: The transaction.
        step: The move, as for `move`.
        moving: The entities.

    Raises:
        MoveRefusedError: When the move is not legal from the state of one of them. Nothing was changed.
    """
    kind, table = _ENTITIES[type(step)]
    states: dict[str, FileState | BatchState | SubmissionState] = {}
    for chunk in id_chunks([entity.entity_id for entity in moving]):
        for row in tx.execute(_locked(table).where(table.c.id.in_(chunk))):
            states[row.id] = _state(step, row)
    changes, lines = [], []
    for entity in moving:
        before = states.get(entity.entity_id)
        if before not in step.before:
            raise MoveRefusedError(kind, entity.entity_id, before, step.after, step.event)
        changes.append({"its_id": entity.entity_id, **_changes(tx, step, before), **entity.values})
        recorded_before, recorded_after = entity.history_states or (before, step.after)
        lines.append(HistoryLine(entity.entity_id, recorded_before, recorded_after, entity.reason))
    if changes:
        tx.connection.execute(sa.update(table).where(table.c.id == sa.bindparam("its_id")), changes)
        record_all(tx, kind, lines)


def _locked(table: sa.Table) -> sa.Select[Any]:
    """Select rows that no other transaction moves meanwhile.

    A process that has read the name of a pipeline before it was renamed does not lock out the others.
    """
    return sa.select(table).with_for_update(key_share=True)


def _state(step: Move, row: sa.Row[Any]) -> FileState | BatchState | SubmissionState:
    if isinstance(step, SubmissionMove):
        return to_record(Submission, row).state
    return row.state  # type: ignore[no-any-return]


def _changes(tx: Transaction, step: Move, before: str | None) -> dict[str, Any]:
    """Return the columns that represent the state after a move."""
    if not isinstance(step, SubmissionMove):
        return {"state": step.after}
    if before is SubmissionState.FINAL:
        return {"final_at": None}
    return {_SINCE[step.after]: tx.now}
