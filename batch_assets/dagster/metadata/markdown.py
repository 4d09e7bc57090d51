"""Markdown for metadata and descriptions: tables and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

_CELL = 120


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], note: str = "") -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table. Long values are cut.

    Args:
        columns: The names of the columns to show.
        rows: The rows.
        note: Markdown that follows the table.
    """
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join([*lines, *(["", note] if note else [])]))


def fenced(text: str, language: str = "") -> str:
    """Return a code block with the text. Its fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(str(value).split())
    if len(text) > _CELL:
        text = text[: _CELL - 1] + "…"
    # Text from a dataset must not act as markup.
    for mark in "\\`*_<>[]|#":
        text = text.replace(mark, "\\" + mark)
    return text
