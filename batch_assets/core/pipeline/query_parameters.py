"""Find the parameters of a partition that a query reads."""

from __future__ import annotations

import re

PARAMETERS = ("partition", "partition_start", "partition_end")
# Parameters do not occur in text, quoted names and comments. After two colons comes a cast.
QUERY_TOKENS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | (?<![:\w]):(?P<name>\w+)""",
    re.DOTALL | re.VERBOSE,
)


def parameters_in(query: str) -> set[str]:
    """Return those of PARAMETERS that a query reads."""
    return {match["name"] for match in QUERY_TOKENS.finditer(query)} & set(PARAMETERS)
