"""Submissions that are about to be registered.

The folder of a submission is finished just before the submission is registered. If the build is killed or frozen
in between, nothing in the folder shows that the ledger never knew it. So the ledger records beforehand that it is
about to register a submission, and the transaction that registers it removes the record. What has a record was
never sent. A record is a row in the table of leases that no process holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from batch_assets.core.ledger.connection import Transaction, process_name
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.tables import lease


def begin(tx: Transaction, submission_id: str) -> None:
    """Record that a submission is about to be registered."""
    values = {"name": _name(submission_id), "owner": process_name(), "until": 0.0}
    tx.execute(sa.insert(lease).values(values))


def end(tx: Transaction, submission_id: str) -> None:
    """Remove the record: the submission is registered, or its folder was removed."""
    tx.execute(sa.delete(lease).where(lease.c.name == _name(submission_id)))


def unregistered(tx: Transaction, submission_ids: Sequence[str]) -> set[str]:
    """Return those of some submissions that were about to be registered and never were."""
    names = {_name(submission_id): submission_id for submission_id in submission_ids}
    statements = (sa.select(lease.c.name).where(lease.c.name.in_(chunk)) for chunk in id_chunks([*names]))
    return {names[name] for statement in statements for name in tx.execute(statement).scalars()}


def _name(submission_id: str) -> str:
    return f"building:{submission_id}"
