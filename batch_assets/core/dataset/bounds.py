"""The most that is read at once. A hostile or broken file ends with an error that names it, in bounded memory."""

from __future__ import annotations

from batch_assets.core.errors import DatasetError

LINE_BYTES = 256_000_000
"""The most bytes of a line, and of a CSV row with all its lines: what a whole batch may weigh."""
COLUMNS = 10_000
"""The most columns of a dataset."""
JSON_DEPTH = 200
"""The most levels of lists and objects in a line of JSON."""
EXPANSION = 200
"""A compressed file may unpack to this many times its size. Tables rarely reach 30."""
FREE_BYTES = LINE_BYTES + 8_000_000
"""A compressed file may unpack to this size, whatever its own. An endless line is named before that."""


def check_columns(count: int, name: str) -> None:
    """Check the number of columns.

    Args:
        count: The number of columns.
        name: The file or other origin of the columns, with the line if there is one.

    Raises:
        DatasetError: When there are too many.
    """
    if count > COLUMNS:
        raise too_many_columns(count, name)


def too_many_columns(count: int, name: str) -> DatasetError:
    """Make the error for a dataset with too many columns.

    Args:
        count: The number of columns.
        name: The file or other origin of the columns, with the line if there is one.
    """
    return DatasetError(
        f"{name}: {count:,} columns; a dataset may have {COLUMNS:,}. If these are values and not columns, check "
        "the format and the line breaks"
    )


def long_line(name: str, line: int, remedy: str = "") -> DatasetError:
    """Make the error for a line that is too long.

    Args:
        name: The file.
        line: The number of the line, from 1.
        remedy: What may be wrong, as a sentence.
    """
    problem = (
        f"{name}, line {line}: the line is longer than {LINE_BYTES // 1_000_000} MB, the most that a batch holds"
    )
    return DatasetError(f"{problem}. {remedy}" if remedy else problem)
