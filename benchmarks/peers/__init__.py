"""Other tools for batches, each run as its documentation shows, on the emulator: see docs/comparison.md."""
