"""The project's documentation as data: its pages, their code blocks, the names in them, and their links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]+)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
_INDENTED = re.compile(r"(?:^\n|\A)((?: {4}\S.*\n)(?:(?: {4}.*)?\n)*)", re.M)
_ITEM = re.compile(r"^([-*]|\d+\.) ", re.M)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)|^\[[^\]]+\]: (\S+)$", re.M)
_HEADING = re.compile(r"^#+ (.+)$", re.M)
# The least that a pipeline file must hold. It is added to the fragments that pages show.
MINIMAL: dict[str, Any] = {
    "name": "shown",
    "dataset": {"path": "data/shown.csv", "key": "id"},
    "params": {
        "model": "claude-haiku-5-5",
        "max_tokens": 300,
        "messages": [{"role": "user", "content": "{{ text }}"}],
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        location: Page and line, for errors.
    """

    location: str
    language: str
    text: str

    def __str__(self) -> str:
        return self.location


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(PROJECT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @property
    def prose(self) -> str:
        """The page without its code blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self) -> Iterator[Block]:
        """Fenced blocks, and commands that are indented by four spaces as blocks of sh."""
        for match in _FENCE.finditer(self.text):
            indent = len(match["indent"])
            lines = [line[indent:] for line in match["body"].splitlines()]
            yield Block(self._location(match.start()), match["language"], "\n".join(lines) + "\n")
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), self.text)
        for match in _INDENTED.finditer(text):
            before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
            if not _ITEM.match(before):  # otherwise it belongs to the item
                lines = [line[4:] for line in match[1].splitlines()]
                yield Block(self._location(match.start(), text), "sh", "\n".join(lines) + "\n")

    def spans(self) -> list[str]:
        """The texts between backticks."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]

    def links(self) -> list[str]:
        return [inline or reference for inline, reference in _LINK.findall(self.prose)]

    def anchors(self) -> set[str]:
        """The anchors of this page's headings, as GitHub makes them."""
        anchors = set()
        for heading in _HEADING.findall(self.prose):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
            anchors.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
        return anchors

    def table(self, heading: str) -> list[list[str]]:
        """The cells of the tables under a heading, row by row, without their headers."""
        parts = re.split(r"^(#+ .+)$", self.prose, flags=re.M)
        level = next((part for part in parts if part.lstrip("# ") == heading and part.startswith("#")), None)
        assert level is not None, f"{self.name} has no heading {heading!r}"
        section = parts[parts.index(level) + 1]
        rows = re.findall(r"(?:^\|.*\|\n)+", section, re.M)
        cells = [row for table in rows for row in table.splitlines()[2:]]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in cells]

    def _location(self, position: int, text: str | None = None) -> str:
        return f"{self.name}:{(text or self.text).count(chr(10), 0, position) + 1}"


@cache
def pages() -> list[Page]:
    """The pages next to the README, and everything in docs/, without the changelog: what it names may be gone."""
    top = [PROJECT / f"{name}.md" for name in ("README", "CONTRIBUTING", "RELEASING", "SECURITY")]
    return [Page(path) for path in (*top, *sorted((PROJECT / "docs").rglob("*.md")))]


def page(name: str) -> Page:
    return Page(PROJECT / name)


def blocks(*languages: str) -> list[Block]:
    return [block for page_ in pages() for block in page_.blocks() if block.language in languages]
