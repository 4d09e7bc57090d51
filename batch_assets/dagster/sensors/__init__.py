"""The sensors: one that watches the ledger, and those that watch a dataset."""
