"""CSV files with another delimiter than a comma, which are read as one column."""

from __future__ import annotations

import json
from collections.abc import Sequence

from batch_assets.core.pipeline.dataset import DatasetConfig

DELIMITERS = ";\t|"
"""The characters that CSV files often have between fields in place of a comma."""


def other_delimiter(names: Sequence[str]) -> str | None:
    """Return the delimiter that a CSV file with one column seems to have in place of a comma; `None` without one.

    Args:
        names: The names of the columns that were read with a comma.
    """
    if len(names) != 1:
        return None
    return next((each for each in DELIMITERS if len(list(filter(str.strip, names[0].split(each)))) > 1), None)


def delimiter_remedy(config: DatasetConfig, names: Sequence[str]) -> str | None:
    """Return what to write if a CSV file seems to have another delimiter; `None` if it does not, or is none.

    Args:
        config: The fields of the dataset.
        names: The names of its columns.
    """
    delimiter = other_delimiter(names)
    if config.path is None or delimiter is None or (config.csv is not None and config.csv.delimiter is not None):
        return None
    return f"if {delimiter!r} is between its fields, add `csv: {{delimiter: {json.dumps(delimiter)}}}`"
