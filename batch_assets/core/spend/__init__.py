"""What was spent: one table for all pipelines of a root, from the response store and the ledger."""
