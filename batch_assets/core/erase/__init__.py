"""Erase rows: out of every file under the root, the ledger, the sink, and the batches at the API."""
