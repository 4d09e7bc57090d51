"""`python -m tests.chaos`: kills, faults and crashes, and a table of what they cost. Every number should be 0.

Exits with 1 if a row was lost, a request was paid twice, a batch was orphaned, an amount is not that of the API's
bill, or anything else was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.auditor import Audit
from tests.chaos.campaign import BENCHES, run_campaign
from tests.chaos.table import PAGE, as_text, with_table


def main() -> int:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    help_ = "of the process, by position and at random times; default: what fits into 10 minutes"
    parser.add_argument("--kills", type=int, help=help_)
    parser.add_argument("--seed", type=int, default=1, help="of what is chosen at random")
    parser.add_argument("--benches", type=int, default=BENCHES, help="trials at a time")
    parser.add_argument("--no-dagster", action="store_true", help="leave out daemon, code server and run worker")
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.name} too")
    parser.add_argument(
        "--folder", type=Path, help="where to keep the trials' files; default in memory, or TMPDIR"
    )
    parser.add_argument("--faults-only", action="store_true", help="no kills, only the other faults")
    options = parser.parse_args()
    memory = Path("/dev/shm")  # a killed process loses nothing that it has written, synced to a disk or not
    with tempfile.TemporaryDirectory(
        prefix="chaos-", dir=options.folder or (memory if memory.is_dir() else None)
    ) as folder:
        lines = run_campaign(
            Path(folder),
            kills=0 if options.faults_only else options.kills,
            seed=options.seed,
            benches=options.benches,
            dagster=not (options.no_dagster or options.faults_only),
        )
    bad = [problem for line in lines for problem in line.bad]
    audit = Audit()
    for line in lines:
        audit.add(line.audit)
    print(audit, file=sys.stderr)
    for problem in bad:
        print(problem, file=sys.stderr)
    print(as_text(lines))
    if options.page:
        PAGE.write_text(with_table(PAGE.read_text("utf-8"), lines), "utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
