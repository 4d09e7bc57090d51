"""A process that is frozen beyond its lease while another one takes over, and then wakes up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried, ended

# Kill positions, as in `kills.positions`. In `batches`, those of the first upload are closest to each other.
_POSITIONS = {
    "requests": (20, 60, 90),
    "batches": (4, 34, 35, 37, 38, 40, 41, 42, 43, 44, 47, 51, 64, 82, 89, 90, 132, 138),
    "retry": (30, 44, 90),
    "collection": (10, 40, 70, 100),
    "results": (10, 30),
}
# Of these, the positions with several uploads at a time: the position is of one file, another may be anywhere.
_TOGETHER = (82, 90, 132)
# Seconds for which an upload of a frozen process is looked for, as it may have arrived.
_GRACE = 0.5


def cases() -> Iterator[Case]:
    for stage, positions in _POSITIONS.items():
        fault = "frozen past its lease in mid-upload" if stage == "batches" else "frozen past its lease elsewhere"
        for at in positions:
            where = f"{stage}, position {at}"
            yield Case(f"{fault}, while another takes over", where, partial(_frozen, stage=stage, at=at))


def _frozen(bench: Bench, stage: str, at: int) -> Tried:
    """The process that wakes up must notice that it has lost its lease.

    If it was frozen between its last check of the lease and the last bytes of a body, it sends them when it
    wakes up, and no client can keep a server from accepting them. That must be reported as paid twice.
    """
    together = stage == "batches" and at in _TOGETHER
    with bench.trial(bench.prepared(stage), _GRACE, one_by_one=not together) as trial:
        frozen = trial.start(stage, kill_at=at, freeze=True)
        position = frozen.freeze()
        if position:
            trial.finish(from_dataset=stage == "requests")
            frozen.wake()
        trial.expect_given_up(frozen.wait())
        ended(bench, trial)
        reported = together or position == "before socket.send"
        return trial.finish(from_dataset=stage == "requests", reported=reported), int(bool(position))
