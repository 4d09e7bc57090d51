"""The faults of the campaign other than kills, in groups, each at several positions, judged by the same judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.chaos.faults import (
    clocks,
    create,
    disk,
    endings,
    freezes,
    identity,
    ledger,
    looks,
    outside,
    postgres,
    reconciling,
    refusals,
    removed,
    rescue,
    results,
    rewriting,
    together,
    workspace,
)
from tests.chaos.faults.case import Case, run_case

__all__ = ["GROUPS", "Case", "cases", "run_case"]

GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "create": create.cases,
    "refusals": refusals.cases,
    "reconciling": reconciling.cases,
    "workspace": workspace.cases,
    "looks": looks.cases,
    "results": results.cases,
    "endings": endings.cases,
    "freezes": freezes.cases,
    "together": together.cases,
    "ledger": ledger.cases,
    "identity": identity.cases,
    "disk": disk.cases,
    "outside": outside.cases,
    "clocks": clocks.cases,
    "postgres": postgres.cases,
    "removed": removed.cases,
    "rewriting": rewriting.cases,
    "rescue": rescue.cases,
}
"""Groups of faults by name."""


def cases() -> Iterator[Case]:
    """All cases of all groups."""
    for group in GROUPS.values():
        yield from group()
