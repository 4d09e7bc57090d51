"""The durable record of submissions, request files, batches, their states and every transition."""

from batch_assets.core.ledger.connection import Ledger, Transaction
from batch_assets.core.ledger.leases import Lease

__all__ = ["Lease", "Ledger", "Transaction"]
