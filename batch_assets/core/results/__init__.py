"""The third stage: store ended batches as response files, and join index and responses into the results table."""
