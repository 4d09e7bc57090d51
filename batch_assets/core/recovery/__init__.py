"""A lost ledger, rebuilt from the files under the root."""
