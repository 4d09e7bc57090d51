"""The index of answers: which requests are answered, and which are in flight, without reading all files.

It is a cache. The files under the root are the truth, `store/answer_index.py` compares it with them, and reads
again what differs. Every content of a file that was ever read has a number of its own, so what the index has under
a number never changes: it is either complete or not used. A ledger that was restored or repaired may lack rows of
the index: one request of each file, its witness, is looked for.

Digests are evenly distributed, so the thousand requests of a partition are at a thousand places of any sorted
sequence. A database close to its pages finds them in one statement.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.id_chunks import id_chunks
from batch_assets.core.ledger.tables import answer, asked, index_check, indexed_file

ROWS_AT_ONCE = 20_000
"""Rows that one transaction writes: meanwhile no other process can write."""

_DIGEST_BYTES = 16
# The earliest files whose witness each stage looks for. Those of all files are looked for with their versions.
_LOOKED_AT = 16
RETIRED = ""
"""The version of a file that is not used any more. No file has it."""
_NO_DIGESTS = np.empty(0, "S16")
IS_REQUEST_FILE = indexed_file.c.name_hash.is_(None)
"""The condition for a request file. All others are response files."""
# A parameter for each digest would have to be parsed. One parameter has all of them, and the database cuts it.
_WANTED = {
    "sqlite": (
        "WITH RECURSIVE wanted(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM wanted "
        "WHERE number + 1 < :count) SELECT wanted.number, {columns} FROM wanted CROSS JOIN {table} "
        "WHERE {table}.digest = substr(:digests, 16 * wanted.number + 1, 16)"
    ),
    "postgresql": (
        "SELECT wanted.number, {columns} FROM generate_series(0, :count - 1) AS wanted(number) "
        "JOIN {table} ON {table}.digest = substring(CAST(:digests AS bytea) FROM 16 * wanted.number + 1 FOR 16)"
    ),
}
_INSERT = {
    "answer": (
        "INSERT INTO answer (digest, file_number, file_row, outcome) SELECT "
        "substring(CAST(:digests AS bytea) FROM 16 * CAST(position AS integer) - 15 FOR 16), file_number, "
        "file_row, outcome FROM unnest(CAST(:numbers AS integer[]), CAST(:rows AS integer[]), "
        "CAST(:outcomes AS integer[])) WITH ORDINALITY AS new(file_number, file_row, outcome, position)"
    ),
    "asked": (
        "INSERT INTO asked (digest, file_number) SELECT "
        "substring(CAST(:digests AS bytea) FROM 16 * new.number + 1 FOR 16), :number "
        "FROM generate_series(0, :count - 1) AS new(number)"
    ),
}


@dataclass(frozen=True)
class IndexedFile:
    """A content of a file that is completely in the index.

    Attributes:
        number: Its number, by which rows of the index refer to it.
        name: The name of the response file, or the id of the request file.
        version: Which content it is.
        requests: The number of its requests.
        ended_at: When its batch ended, in seconds since 1970; 0.0 for a request file.
        groups: `row_groups` as JSON.
    """

    number: int
    name: str
    version: str
    requests: int
    ended_at: float
    groups: str

    @property
    def row_groups(self) -> list[tuple[int, int]]:
        """(rows, bytes) of each row group of a response file."""
        return [(rows, size) for rows, size in json.loads(self.groups)]


@dataclass(frozen=True)
class IndexState:
    """What can be seen of the index of a pipeline's answers without reading all of it.

    Attributes:
        checked_at: When all response files were last compared with the index; 0.0 if they never were.
        is_empty: Whether it has no file.
        has_lost_rows: Whether rows of its earliest files were lost.
    """

    checked_at: float
    is_empty: bool
    has_lost_rows: bool


def used(pipeline: str) -> sa.ColumnElement[bool]:
    """Return the condition for the files of a pipeline that are not retired."""
    return sa.and_(indexed_file.c.pipeline == pipeline, indexed_file.c.version != RETIRED)


def response_files(tx: Transaction, pipeline: str) -> list[IndexedFile]:
    """Return the response files of a pipeline that are in the index, earliest indexed first."""
    return _files(tx, used(pipeline), ~IS_REQUEST_FILE)


def _files(tx: Transaction, *conditions: sa.ColumnElement[bool]) -> list[IndexedFile]:
    statement = sa.select(indexed_file).where(*conditions, indexed_file.c.requests.is_not(None))
    rows = tx.execute(statement.order_by(indexed_file.c.number))
    return [
        IndexedFile(row.number, row.name, row.version, row.requests, row.ended_at, row.row_groups) for row in rows
    ]


def without_rows(tx: Transaction, pipeline: str) -> set[int]:
    """Return the numbers of a pipeline's response files whose rows of the index were lost."""
    return set(tx.execute(_without_witness(answer, used(pipeline), ~IS_REQUEST_FILE)).scalars())


def _without_witness(
    rows: sa.Table, *conditions: sa.ColumnElement[bool], most: int | None = None
) -> sa.Select[tuple[int]]:
    """Select the numbers of complete files whose witness is not among the rows of the index.

    Args:
        rows: The table of the rows, `answer` or `asked`.
        conditions: Which files.
        most: Only the earliest files, so many of them; `None` for all.
    """
    columns = indexed_file.c.number, indexed_file.c.witness
    files = sa.select(*columns).where(
        *conditions, indexed_file.c.requests.is_not(None), indexed_file.c.witness.is_not(None)
    )
    looked_at = files.order_by(indexed_file.c.number).limit(most).subquery()
    is_there = sa.exists().where(rows.c.digest == looked_at.c.witness, rows.c.file_number == looked_at.c.number)
    return sa.select(looked_at.c.number).where(~is_there)


def response_versions(tx: Transaction, pipeline: str) -> dict[str, str]:
    """Return the newest version of each response file of a pipeline that is in the index, by name."""
    columns = indexed_file.c.name, indexed_file.c.version
    in_index = used(pipeline), ~IS_REQUEST_FILE, indexed_file.c.requests.is_not(None)
    names, versions = tx.texts(columns, *in_index)
    newest = dict(zip(names, versions, strict=True))
    if len(newest) == len(names):
        return newest
    rows: Any = tx.execute(sa.select(*columns).where(*in_index).order_by(indexed_file.c.number)).all()
    return dict(rows)


def request_file_numbers(tx: Transaction, pipeline: str) -> tuple[dict[str, tuple[int, str]], list[int]]:
    """Return what the index has of the request files of a pipeline.

    Returns:
        Number and version of each file, by id, and the numbers to retire. If rows of the index were lost, these
        are all numbers, and there is no file: one whose witness is there may have lost others.
    """
    is_used = used(pipeline), IS_REQUEST_FILE
    is_lost = indexed_file.c.number.in_(_without_witness(asked, *is_used))
    columns = indexed_file.c.name, indexed_file.c.number, indexed_file.c.version, is_lost.label("is_lost")
    statement = sa.select(*columns).where(*is_used, indexed_file.c.requests.is_not(None))
    rows = tx.execute(statement.order_by(indexed_file.c.number)).all()
    if any(row.is_lost for row in rows):
        return {}, [row.number for row in rows]
    return {row.name: (row.number, row.version) for row in rows}, []


def has_response_files(tx: Transaction, pipeline: str) -> bool:
    """Whether the index has response files of a pipeline."""
    statement = sa.select(indexed_file.c.number).where(used(pipeline), ~IS_REQUEST_FILE).limit(1)
    return tx.execute(statement).first() is not None


def of_numbers(tx: Transaction, pipeline: str, numbers: Collection[int]) -> list[IndexedFile]:
    """Return those of some numbers that are the newest of a response file of a pipeline, and complete."""
    known: list[IndexedFile] = []
    for chunk in id_chunks(sorted(numbers)):
        files = _files(tx, used(pipeline), ~IS_REQUEST_FILE, indexed_file.c.number.in_(chunk))
        newest = (
            sa.select(sa.func.max(indexed_file.c.number))
            .where(used(pipeline), indexed_file.c.requests.is_not(None))
            .where(indexed_file.c.name.in_([file.name for file in files]))
            .group_by(indexed_file.c.name)
        )
        in_force = set(tx.execute(newest).scalars())
        known += [file for file in files if file.number in in_force]
    return known


def names_hash(names: Iterable[str]) -> tuple[int, int]:
    """Return the number of names of response files and a hash of them, whatever their order."""
    hashes = [*map(crc32, map(str.encode, names))]
    return len(hashes), sum(hashes)


def indexed_names(tx: Transaction, pipeline: str) -> tuple[int, int]:
    """Return `names_hash` of the response files of a pipeline that are in the index."""
    statement = sa.select(sa.func.count(), sa.func.sum(indexed_file.c.name_hash)).where(
        used(pipeline), ~IS_REQUEST_FILE, indexed_file.c.requests.is_not(None)
    )
    row: Any = tx.execute(statement).one()
    files, hashes = row
    return int(files), int(hashes or 0)


def state(tx: Transaction, pipeline: str) -> IndexState:
    """Return what can be seen of the index of a pipeline's answers at a glance."""
    checked_at = sa.select(index_check.c.checked_at).where(index_check.c.pipeline == pipeline)
    files = used(pipeline), ~IS_REQUEST_FILE
    lost = _without_witness(answer, *files, most=_LOOKED_AT)
    number = sa.select(indexed_file.c.number).where(*files).limit(1)
    statement = sa.select(checked_at.scalar_subquery(), number.scalar_subquery(), sa.exists(lost))
    row: Any = tx.execute(statement).one()
    return IndexState(float(row[0] or 0.0), is_empty=row[1] is None, has_lost_rows=bool(row[2]))


def checked(tx: Transaction, pipeline: str) -> None:
    """Record that the versions of all response files were compared with the index."""
    tx.execute(sa.delete(index_check).where(index_check.c.pipeline == pipeline))
    tx.execute(sa.insert(index_check).values(pipeline=pipeline, checked_at=tx.now))


def begin(
    tx: Transaction,
    pipeline: str,
    name: str,
    version: str,
    *,
    ended_at: float = 0.0,
    row_groups: Sequence[tuple[int, int]] = (),
    is_response: bool = True,
    digests: NDArray[np.bytes_] = _NO_DIGESTS,
) -> int:
    """Give a content of a file a number, under which its requests are added. It is not used before `complete`.

    Args:
        tx: The transaction.
        pipeline: The pipeline of the file.
        name: See `IndexedFile`.
        version: See `IndexedFile`.
        ended_at: See `IndexedFile`.
        row_groups: See `IndexedFile`.
        is_response: Whether it is a response file.
        digests: The digests of its requests, sorted: S16, shape (n,). One of them will be its witness.
    """
    values = {
        "pipeline": pipeline,
        "name": name,
        "version": version,
        "ended_at": ended_at,
        "row_groups": json.dumps(row_groups),
        "indexed_at": tx.now,
        "name_hash": crc32(name.encode()) if is_response else None,
        "witness": _witness(name, digests),
    }
    inserted = tx.execute(sa.insert(indexed_file).values(values))
    return int(inserted.inserted_primary_key[0])  # type: ignore[index]


def _witness(name: str, digests: NDArray[np.bytes_]) -> bytes | None:
    """Return one of the digests of a file, at a place that differs from file to file; `None` if there is none."""
    if not len(digests):
        return None
    place = crc32(name.encode()) % len(digests)
    return bytes_of(digests[place : place + 1])


def complete(tx: Transaction, requests: dict[int, int]) -> None:
    """Record that all requests of one or more files are in the index: their number, by the number of the file."""
    _set(tx, "requests", requests)


def seen(tx: Transaction, versions: dict[int, str]) -> None:
    """Record the versions of one or more files, by number, that were not known when the files were written."""
    _set(tx, "version", versions)


def _set(tx: Transaction, column: str, values: Mapping[int, Any]) -> None:
    """Set a column of one or more files, by number, with one statement."""
    statement = sa.update(indexed_file).where(indexed_file.c.number == sa.bindparam("its_number"))
    rows = [{"its_number": number, column: value} for number, value in values.items()]
    tx.connection.execute(statement, rows)


def add_answers(
    tx: Transaction,
    numbers: NDArray[np.integer],
    digests: NDArray[np.bytes_],
    rows: NDArray[np.integer],
    outcomes: NDArray[np.integer],
) -> None:
    """Add responses of files, at most ROWS_AT_ONCE.

    Args:
        tx: The transaction.
        numbers: The number of the file of each response; shape (n,).
        digests: The digests of the requests, each once for a file: S16, shape (n,). Sorted ones are added faster.
        rows: The row of each response in its file; shape (n,).
        outcomes: The outcome of each; shape (n,).
    """
    content = bytes_of(digests)
    if tx.connection.dialect.name == "sqlite":
        table = zip(pieces(content), numbers.tolist(), rows.tolist(), outcomes.tolist(), strict=True)
        statement = "INSERT INTO answer (digest, file_number, file_row, outcome) VALUES (?, ?, ?, ?)"
        tx.connection.exec_driver_sql(statement, [*table])
        return
    values = {
        "digests": content,
        "numbers": numbers.tolist(),
        "rows": rows.tolist(),
        "outcomes": outcomes.tolist(),
    }
    tx.connection.execute(sa.text(_INSERT["answer"]), values)


def add_asked(tx: Transaction, number: int, digests: NDArray[np.bytes_]) -> None:
    """Add requests of a request file, at most ROWS_AT_ONCE. See `add_answers`."""
    content = bytes_of(digests)
    if tx.connection.dialect.name == "sqlite":
        table = zip(pieces(content), [number] * len(digests), strict=True)
        tx.connection.exec_driver_sql("INSERT INTO asked (digest, file_number) VALUES (?, ?)", [*table])
        return
    values = {"digests": content, "number": number, "count": len(digests)}
    tx.connection.execute(sa.text(_INSERT["asked"]), values)


def find_answers(tx: Transaction, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Find all responses to some requests, of all pipelines and of all numbers.

    Args:
        tx: The transaction.
        digests: The digests of the requests: S16, shape (n,).

    Returns:
        For each response the position of its request in `digests`, the number of its file, its row in the file,
        and its outcome; int64, shape (responses, 4).
    """
    return _find(tx, "answer", "answer.file_number, answer.file_row, answer.outcome", 4, digests)


def find_asked(tx: Transaction, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Find the request files that have some requests: position in `digests`, and number; int64, shape (m, 2)."""
    return _find(tx, "asked", "asked.file_number", 2, digests)


def _find(tx: Transaction, table: str, columns: str, width: int, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
    if len(digests) == 0:
        return np.empty((0, width), np.int64)
    statement = _WANTED[tx.connection.dialect.name].format(table=table, columns=columns)
    values = {"digests": bytes_of(digests), "count": len(digests)}
    rows = tx.connection.execute(sa.text(statement), values).fetchall()
    return np.array([tuple(row) for row in rows], np.int64).reshape(len(rows), width)


def bytes_of(digests: NDArray[np.bytes_]) -> bytes:
    """Return digests one after the other, 16 bytes each."""
    return np.ascontiguousarray(digests).tobytes()


def pieces(content: bytes) -> Iterator[bytes]:
    """Yield the digests that `bytes_of` has joined."""
    for start in range(0, len(content), _DIGEST_BYTES):
        yield content[start : start + _DIGEST_BYTES]
