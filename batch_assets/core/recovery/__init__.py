"""Rebuild a lost ledger from the files under the root."""
