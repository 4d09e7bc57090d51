"""The examination of a results table."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.results.examine import examine

from ..support import World, params


def test_row_keys_that_are_misplaced_or_missing_are_named(world: World) -> None:
    pq.write_table(pa.table({"id": [1.5, 0.25, 2.5]}), world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"}, params=params("number {{ id }}"))
    world.run(pipeline)
    examination = examine(world.root, pipeline)
    assert examination is not None
    assert (examination.rows, examination.misplaced) == (3, [])

    path = world.path(pipeline.name, "results", "results.parquet")
    table = pq.read_table(path)
    spoiled = table.set_column(0, table.schema.field(0), pa.array([1.5, 2.5, 0.25]))
    pq.write_table(spoiled, path)
    examination = examine(world.root, pipeline)
    assert examination is not None
    assert examination.misplaced == ["the rows are in another order"]

    pq.write_table(table.slice(0, 1), path)
    examination = examine(world.root, pipeline)
    assert examination is not None
    assert examination.misplaced == ["2 rows are missing, such as 0.25"]

    pq.write_table(table.slice(0, 0), path)
    examination = examine(world.root, pipeline)
    assert examination is not None
    assert examination.misplaced == ["3 rows are missing, such as 1.5"]

    foreign = pa.array([1.5, 1.5, 7.0])
    pq.write_table(table.set_column(0, table.schema.field(0), foreign), path)
    examination = examine(world.root, pipeline)
    assert examination is not None
    assert examination.misplaced == [
        "2 rows are missing, such as 0.25",
        "1 row is there more than once, such as 1.5",
        "1 row is not in the dataset, such as 7.0",
    ]
