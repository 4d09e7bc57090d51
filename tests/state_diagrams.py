"""The diagrams of states in docs/durability.md, drawn from the tables of legal moves by `make diagrams`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from batch_assets.core.ledger.states import BatchMove, FileMove, Move, SubmissionMove
from tests.documentation import PROJECT

PAGE = PROJECT / "docs/durability.md"
TABLES: dict[str, Iterable[Move]] = {"request file": FileMove, "batch": BatchMove, "submission": SubmissionMove}
# What comes into being begins here.
_NOTHING = "[*]"


def diagram(moves: Iterable[Move]) -> str:
    """Legal moves as a state diagram of Mermaid: an arrow from state to state, with its events as the label."""
    events: dict[tuple[str, str], list[str]] = {}
    for step in moves:
        for before in step.before:
            events.setdefault((before or _NOTHING, step.after), []).append(step.event)
    arrows = [f"    {before} --> {after}: {' / '.join(labels)}\n" for (before, after), labels in events.items()]
    return "stateDiagram-v2\n" + "".join(arrows)


def drawn(page: str) -> str:
    """The page with every diagram as the tables have it now.

    Raises:
        LookupError: the page has no place for one of them.
    """
    for kind, moves in TABLES.items():
        place = re.compile(rf"(## The states of a {kind}\n.*?```mermaid\n).*?(```\n)", re.DOTALL)
        found = place.search(page)
        if found is None:
            raise LookupError(f"{PAGE.name} has no diagram under 'The states of a {kind}'")
        page = page[: found.end(1)] + diagram(moves) + page[found.start(2) :]
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
