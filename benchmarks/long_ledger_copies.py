"""Copy what really ran until a ledger is as long as that of a busy year. The database makes the copies itself."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger import answer_index, tables
from batch_assets.core.root import Root
from benchmarks.history import write_responses
from benchmarks.ticks import COPIED_TABLES

_DAY = 86400.0
# Times of the ledger are seconds since 1970; waits and sizes are smaller.
_LEAST_TIME = 1e9
_COPY = "copy"
# Requests of each batch that is copied.
_REQUESTS = 2


def copy_rows(root: Root, partitions: int, copies: int) -> int:
    """Fill a ledger with copies of what ran, spread over the year that ended an hour ago.

    Copy number n belongs to partition `key-<n % partitions>`, so the last copy of each partition is in force.

    Args:
        root: The root, with one finished partition of each pipeline.
        partitions: The number of partitions of each pipeline.
        copies: The number of copies of each submission.

    Returns:
        The number of lines that the history has then.
    """
    number = sa.table(_COPY, sa.column("n", sa.Integer))
    with root.ledger.write() as tx:
        tx.execute(sa.text(f"create table {_COPY} (n integer primary key)"))
        tx.connection.execute(sa.insert(number), [{"n": n} for n in range(1, copies + 1)])
        columns = tables.submission.c.id, tables.batch.c.id
        ids = [str(id_) for column in columns for id_ in tx.execute(sa.select(column)).scalars()]
        for table in COPIED_TABLES:
            tx.execute(sa.text(f'create table "model_{table.name}" as select * from "{table.name}"'))
        for table in COPIED_TABLES:
            tx.execute(_copying(table, number, ids, partitions, copies))
        tx.execute(_superseding())
        for table in COPIED_TABLES:
            tx.execute(sa.text(f'drop table "model_{table.name}"'))
        tx.execute(sa.text(f"drop table {_COPY}"))
        lines = tx.execute(sa.select(sa.func.count()).select_from(tables.history)).scalar_one()
    with root.ledger.write() as tx:
        if not root.ledger.is_file:  # as the server does by itself after a while
            tx.execute(sa.text("analyze"))
    return int(lines)


def _copying(table: sa.Table, number: sa.TableClause, ids: list[str], partitions: int, copies: int) -> sa.Insert:
    """Return the statement that copies all rows of a table, oldest copy first."""
    model = sa.table(f"model_{table.name}", *(sa.column(column.name, column.type) for column in table.columns))
    suffix = sa.literal("n").concat(sa.cast(number.c.n, sa.String))
    shift = (number.c.n - copies) * (365 * _DAY / copies) - _DAY / 24
    chosen: dict[str, sa.ColumnElement[Any]] = {}
    for column in table.columns:
        value = model.c[column.name]
        if column.primary_key and isinstance(column.type, sa.Integer) and column.name != "number":
            continue  # the database chooses this number
        if column.name == "partition":
            chosen[column.name] = sa.literal("key-").concat(sa.cast(number.c.n % partitions, sa.String))
        elif isinstance(column.type, sa.Float):
            chosen[column.name] = sa.case((value > _LEAST_TIME, value + shift), else_=value)
        elif isinstance(column.type, sa.String) and column.name not in ("reason", "headers", "counts"):
            text: sa.ColumnElement[str] = sa.type_coerce(value, sa.String)
            for id_ in ids:
                text = sa.func.replace(text, id_, sa.literal(id_).concat(suffix), type_=sa.String)
            chosen[column.name] = text
        elif table.c[column.name].type.python_type is str:
            chosen[column.name] = sa.type_coerce(value, sa.String)
        else:
            chosen[column.name] = value
    order = [number.c.n, *([model.c.seq] if "seq" in model.c else [])]
    rows = sa.select(*(value.label(name) for name, value in chosen.items())).select_from(
        model.join(number, sa.true())
    )
    return sa.insert(table).from_select(list(chosen), rows.order_by(*order))


def _superseding() -> sa.Update:
    """Return the statement that records which submissions are no longer in force, as their registration would."""
    submission = tables.submission
    later = submission.alias()
    same = sa.and_(later.c.pipeline == submission.c.pipeline, later.c.partition == submission.c.partition)
    times = (
        sa.select(later.c.created_at).where(same, later.c.seq > submission.c.seq).order_by(later.c.seq).limit(1)
    )
    return sa.update(submission).values(superseded_at=times.scalar_subquery())


def copy_files(root: Root, pipeline: str, partitions: int, copies: int) -> None:
    """Give each copy a response file, and those that are in force the folder of their request files."""
    folder = Path(root.settings.root, pipeline)
    (first,) = (folder / "requests" / "partition=key-0").iterdir()
    for number in range(copies - partitions + 1, copies + 1):
        copy = folder / "requests" / f"partition=key-{number % partitions}" / f"{first.name}n{number}"
        copy.parent.mkdir(exist_ok=True)
        copy.symlink_to(first, target_is_directory=True)
    (response,) = (folder / "responses").glob("*.parquet")
    names = [f"{response.stem}n{number}" for number in range(1, copies + 1)]
    write_responses(root, pipeline, names[0], random.Random(pipeline).randbytes(16 * _REQUESTS), 1)
    for name in names[1:]:
        os.link(response.with_stem(names[0]), response.with_stem(name))
    _index(root, pipeline)


def _index(root: Root, pipeline: str) -> None:
    """Make the index of answers, as the first run would. That copies have no requests in it changes nothing."""
    with root.ledger.read() as tx:
        assert not answer_index.has_response_files(tx, pipeline)
    common = {"pipeline": pipeline, "requests": _REQUESTS, "ended_at": 1.0, "row_groups": f"[[{_REQUESTS}, 100]]"}
    versions = root.storage.versions(pipeline, "responses")
    with root.ledger.write() as tx:
        rows = [
            common
            | {
                "name": name,
                "version": version,
                "indexed_at": tx.now,
                "name_hash": answer_index.names_hash([name])[1],
            }
            for name, version in versions.items()
        ]
        tx.connection.execute(sa.insert(tables.indexed_file), rows)
        answer_index.checked(tx, pipeline)
