"""Transfers of other runs that share this one's line, as the ledger shows them.

A run knows the speed of its own transfers only. If each of several runs has one that cannot end in its time, all
are broken off, and so are the next ones. So each run marks that it transfers, and one that cannot end in time
gives way to those that began earlier. The line then counts as slow for an hour: no run begins beside another one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from batch_assets.core.ledger import leases
from batch_assets.core.ledger.connection import Ledger, Transaction
from batch_assets.core.ledger.tables import lease

SLOW_SECONDS = 3600.0
_RUN, _SLOW = "transfers:", "slow line"


class SharedLine:
    """The line of a run that transfers, from when it begins the first transfer.

    Args:
        ledger: The ledger.
        pipeline: The pipeline of the run.
    """

    def __init__(self, ledger: Ledger, pipeline: str) -> None:
        self._ledger, self._pipeline = ledger, pipeline
        self._name = ""

    @contextmanager
    def used(self) -> Iterator[SharedLine]:
        """Mark for the block that this run transfers. Its place among the others is decided here."""
        with self._ledger.read() as tx:
            self._name = f"{_RUN}{tx.now:020.6f}:{secrets.token_hex(4)}"
        with leases.mark(self._ledger, self._name, self._pipeline):
            yield self

    def is_taken(self) -> bool:
        """Whether the line is slow and a run transfers that began earlier."""
        with self._ledger.read() as tx:
            return leases.is_held(tx, _SLOW) and self._has_earlier(tx)

    def gives_way(self) -> bool:
        """Whether a run transfers that began earlier. If so, the line counts as slow from now on.

        The caller has found out that its transfer cannot end in time.
        """
        with self._ledger.write() as tx:
            if not self._has_earlier(tx):
                return False
            tx.execute(sa.delete(lease).where(lease.c.name == _SLOW))
            tx.execute(sa.insert(lease).values(name=_SLOW, owner="", until=tx.now + SLOW_SECONDS))
            return True

    def _has_earlier(self, tx: Transaction) -> bool:
        others = sa.select(lease.c.name).where(lease.c.name.like(f"{_RUN}%"), lease.c.until >= tx.now)
        return any(name < self._name for name in tx.execute(others).scalars())
