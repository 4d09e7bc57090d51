"""The history of a pipeline as lines: short ones in a terminal, whole ones everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_assets.core.ledger.transitions import Transition

# Of a submission's id only the end is shown: every line begins with the time anyway.
_ID_END = 8


def history_lines(found: list[Transition], width: int | None) -> Iterator[str]:
    """One line a transition: time, what, from -> to, reason, process.

    Args:
        width: cut lines to so many characters, and ids to their ends; None to leave everything whole.
    """
    named = [_name(entry, short=width is not None) for entry in found]
    moved = [f"{entry.before or '-'} -> {entry.after}" for entry in found]
    columns = max(map(len, named), default=0), max(map(len, moved), default=0)
    for entry, name, move in zip(found, named, moved, strict=True):
        when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        reason = " ".join(entry.reason.split())
        line = f"{when}  {entry.kind:<10}  {name:<{columns[0]}}  {move:<{columns[1]}}  {reason}  [{entry.process}]"
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def _name(entry: Transition, *, short: bool) -> str:
    if not short or entry.kind == "batch":
        return entry.entity
    at = min((entry.entity.find(mark) for mark in "/:" if mark in entry.entity), default=len(entry.entity))
    return f"…{entry.entity[max(0, at - _ID_END) :]}"
