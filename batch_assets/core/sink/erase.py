"""Delete erased rows from the table that a pipeline's sink names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.sink.target import Target
from batch_assets.core.sink.write import leased


def erase_from_sink(
    root: Root,
    pipeline: Pipeline,
    key: str,
    keys: Sequence[str],
    custom_ids: Mapping[str, str],
    types: Sequence[pa.DataType],
) -> int:
    """Delete the rows of some keys, in all partitions, and what other rows have of them.

    Args:
        root: The root.
        pipeline: The pipeline.
        key: The column of the row key.
        keys: The row keys, as texts.
        custom_ids: The new custom_id of each shared request whose custom_id began with such a key.
        types: The types of row keys. A database prints a time or a number otherwise, so such keys are compared as
            values, not as texts.

    Returns:
        The number of deleted rows; 0 if the pipeline has no sink, or the sink has no table yet.

    Raises:
        SinkError: When the database cannot be reached or refuses. Nothing was changed in it.
    """
    sink = pipeline.config.sink
    if sink is None:
        return 0
    from batch_assets.core.sink.erase_rows import erase_rows  # see write.py

    target = Target(pipeline, sink)
    with leased(root, target):
        return erase_rows(target, key, keys, custom_ids, types)
