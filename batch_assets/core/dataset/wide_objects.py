"""Columns whose objects have so many keys over all rows that results carry them as JSON text.

Arrow gives each object all keys of its column. Objects whose keys are ids would need memory and time that grow
with the square of the rows. So they are found before any such column is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.core.io.parquet import has_many_leaves


def are_wide(values: Sequence[Any]) -> bool:
    """Return whether the objects among the values of a column have too many different fields for a nested column.

    Args:
        values: The values as Python has them.

    Returns:
        The answer; false also for values of several kinds, for which Arrow makes no column at all.
    """
    if not any(issubclass(type_, (dict, list, tuple, np.ndarray)) for type_ in set(map(type, values))):
        return False
    try:
        return has_many_leaves(pa.infer_type(values, from_pandas=True))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return False


def unified_field(fields: Sequence[pa.Field]) -> pa.Field:
    """Return a column that can hold the values of several columns of one name.

    Args:
        fields: The columns, with the same name.

    Raises:
        pyarrow.ArrowInvalid: When no type but text can, or the objects have too many different fields. Also
            ArrowTypeError.
    """
    unified = pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive").field(0)
    if len(fields) > 1 and has_many_leaves(unified.type):
        raise pa.ArrowInvalid("the objects have too many different fields")
    return unified
