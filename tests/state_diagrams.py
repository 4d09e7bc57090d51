"""The diagrams of states in docs/durability.md, drawn from the tables of legal moves by `make diagrams`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from batch_assets.core.ledger.states import BatchMove, FileMove, Move, SubmissionMove
from tests.documentation import PROJECT

PAGE = PROJECT / "docs/durability.md"
TABLES: dict[str, Iterable[Move]] = {"request file": FileMove, "batch": BatchMove, "submission": SubmissionMove}
# The arrow to an initial state begins here.
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
    """The page with every diagram as the tables are now.

    Raises:
        LookupError: If the page has no section for a diagram.
    """
    for kind, moves in TABLES.items():
        section = re.compile(rf"(## The states of a {kind}\n.*?```mermaid\n).*?(```\n)", re.DOTALL)
        match = section.search(page)
        if match is None:
            raise LookupError(f"{PAGE.name} has no diagram under 'The states of a {kind}'")
        page = page[: match.end(1)] + diagram(moves) + page[match.start(2) :]
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text("utf-8")), "utf-8")
