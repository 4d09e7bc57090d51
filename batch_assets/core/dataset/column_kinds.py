"""The kinds of columns, as a submission's manifest records them.

The kind of a column is inferred from all of its values. A later row, file or day may change what is inferred, and
with it what templates make of earlier rows. So the next build reads each value by the kind on record if it fits,
and a value that does not fit stays what it is by itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Kinds = dict[str, dict[str, Any]]
"""The kinds of columns by their name, for each group of rows that have their kinds in common: all CSV files (CSV),
all Parquet files (PARQUET), one Parquet file that differs from the others, or a table in memory (TABLE). CONTENTS
has no kinds: it has the digest of each such Parquet file by its group, so that a renamed file is found. Nor has
FILES: it has the Parquet files that are on record, by digests of their names, if they have objects."""

CSV, PARQUET, TABLE = "csv", "parquet", "table"
CONTENTS, FILES = "parquet contents", "parquet files"


def updated(recorded: Kinds, inferred: Kinds, declared: Collection[str]) -> Kinds:
    """Return the kinds to record next.

    A kind stays on record, also while the dataset lacks the column, unless the pipeline declares its type.

    Args:
        recorded: The kinds on record.
        inferred: The kinds of columns that may not be on record yet.
        declared: The columns whose type the pipeline declares.
    """
    groups = dict.fromkeys([*recorded, *inferred])
    kinds = {group: inferred.get(group, {}) | recorded.get(group, {}) for group in groups}
    kept = {
        group: {column: kind for column, kind in columns.items() if column not in declared}
        for group, columns in kinds.items()
    }
    kept[CONTENTS] = recorded.get(CONTENTS, {}) | inferred.get(CONTENTS, {})  # a file may have been written again
    return {group: columns for group, columns in kept.items() if columns}


def of_group(kinds: Mapping[str, Mapping[str, Any]], group: str, declared: Collection[str]) -> dict[str, Any]:
    """Return the kinds on record of one group, without the columns whose type the pipeline declares."""
    return {column: kind for column, kind in kinds.get(group, {}).items() if column not in declared}


def usual_kinds(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the kind that each column has in most files. Of two with as many files, the choice is by their text.

    Args:
        files: The kinds of the columns of each file.
    """
    counts: dict[str, Counter[str]] = {}
    kinds: dict[str, dict[str, Any]] = {}
    for columns in files:
        for name, kind in columns.items():
            text = json.dumps(kind)
            counts.setdefault(name, Counter())[text] += 1
            kinds.setdefault(name, {})[text] = kind
    usual = {name: max(texts, key=lambda text: (texts[text], text)) for name, texts in counts.items()}
    return {name: kinds[name][text] for name, text in usual.items()}


def is_same(kind: Any, other: Any) -> bool:
    """Whether two kinds are the same. The order of an object's keys counts."""
    return kind == other and (isinstance(kind, str) or json.dumps(kind) == json.dumps(other))
