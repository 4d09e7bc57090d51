"""The first stage: write request files and an index from dataset rows, and register them as one submission."""
