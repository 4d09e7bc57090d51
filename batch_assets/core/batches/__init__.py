"""The second stage: create each request file's batch exactly once, and follow the batches until they end."""
