"""A backfill on one machine and on two, and what kills do to it: `python -m benchmarks.fleet`."""
