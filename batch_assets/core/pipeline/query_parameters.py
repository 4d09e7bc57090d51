"""Which of a partition's parameters a query reads."""

from __future__ import annotations

import re

PARAMETERS = ("partition", "partition_start", "partition_end")
# Text, quoted names and comments hold no parameters; what stands behind a second colon is a cast.
QUERY_TOKENS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | (?<![:\w]):(?P<name>\w+)""",
    re.DOTALL | re.VERBOSE,
)


def parameters_in(query: str) -> set[str]:
    """Which of PARAMETERS a query reads."""
    return {match["name"] for match in QUERY_TOKENS.finditer(query)} & set(PARAMETERS)
