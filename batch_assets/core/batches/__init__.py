"""The second stage: request files -> batches, each created exactly once, and what became of them."""
