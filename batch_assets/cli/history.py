"""The history of a pipeline, one line for each transition: cut in a terminal, complete everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.quoting import printable
from batch_assets.core.text import exact_moment

if TYPE_CHECKING:
    from batch_assets.core.ledger.transitions import Transition

# Number of characters shown of a submission's id, from its end: its start is a time, which every line begins with.
_ID_END = 8


def history_lines(transitions: list[Transition], width: int | None) -> Iterator[str]:
    """Yield one line for each transition: time, entity, from -> to, reason, process.

    Args:
        transitions: The transitions, in order.
        width: The number of characters to cut lines to, with only the ends of ids. None to cut nothing.
    """
    names = [_name(transition, short=width is not None) for transition in transitions]
    moves = [f"{transition.before or '-'} -> {transition.after}" for transition in transitions]
    name_width, move_width = max(map(len, names), default=0), max(map(len, moves), default=0)
    for transition, name, move in zip(transitions, names, moves, strict=True):
        time = exact_moment(transition.at)
        reason = printable(" ".join(transition.reason.split()))
        entity = f"{transition.kind:<10}  {name:<{name_width}}"
        line = f"{time}  {entity}  {move:<{move_width}}  {reason}  [{transition.process}]"
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def _name(transition: Transition, *, short: bool) -> str:
    entity = transition.entity
    if not short or transition.kind is EntityKind.BATCH:
        return entity
    id_end = min((entity.find(mark) for mark in "/:" if mark in entity), default=len(entity))
    return f"…{entity[max(0, id_end - _ID_END) :]}"
