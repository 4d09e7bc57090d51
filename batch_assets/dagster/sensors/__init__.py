"""The sensors: one watches the ledger, the others watch datasets."""
