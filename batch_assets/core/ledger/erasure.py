"""Erase rows from the ledger: request files without them, and texts that name them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from batch_assets.core.ledger import batches, files, pilots, stubs, submissions
from batch_assets.core.ledger.connection import Transaction
from batch_assets.core.ledger.fixed_words import values_in
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Batch, RequestFile, RequestFileEntry
from batch_assets.core.ledger.states import BATCHES_UNCOLLECTED, EntityKind, FileMove
from batch_assets.core.ledger.tables import (
    batch,
    history,
    metadata,
    notice,
    pilot,
    request_file,
    round_,
    submission,
    wait,
)

_REASON = "a row was erased from it"
# The columns with texts for readers. Errors in them may name a request.
_FOR_READERS = (
    history.c.reason,
    request_file.c.error,
    notice.c.content,
    notice.c.error,
    round_.c.reason,
    pilot.c.why,
)
# The columns with texts that a dataset or a pipeline may give, and those with JSON whose fields are ours.
_OF_ROWS = (submission.c.partition, request_file.c.partition, submission.c.headers, request_file.c.headers)
_JSON = (submission.c.examined, submission.c.joined_table, notice.c.content)
# SQLite limits the depth of a condition to 1,000, and the pattern of LIKE to 50,000 bytes.
_TEXTS_OF_QUERY = 200
_CHARACTERS_OF_QUERY = 5_000


@dataclass(frozen=True)
class Unsettled:
    """A request file that may not change now, because its outcome at the API is open.

    Attributes:
        file: The file.
        batches: Its batches whose answers are not stored.
        watched_until: Until when another batch of it may turn up; `None` if none may.
        is_unsent: It may be sent, and the API does not have it.
    """

    file: RequestFile
    batches: tuple[Batch, ...] = ()
    watched_until: float | None = None
    is_unsent: bool = False


def unsettled_files(tx: Transaction, pipeline: str) -> list[Unsettled]:
    """Return the files of a pipeline that are in flight, or that have a batch which may still bring answers."""
    watched = {file.id: intent.watch_until for intent, file in files.watched(tx)}
    late = sa.select(batch.c.file_id).where(batch.c.state.in_(BATCHES_UNCOLLECTED), batch.c.file_id.is_not(None))
    ids = {file.id for file in submissions.files_in_flight(tx, pipeline)}
    ids |= {id_ for id_ in tx.execute(late.where(batch.c.pipeline == pipeline)).scalars() if id_ is not None}
    ids |= {id_ for id_ in watched if files.by_id(tx, id_).pipeline == pipeline}
    unsettled = []
    for id_ in sorted(ids):
        file = files.by_id(tx, id_)
        open_batches = tuple(b for b in batches.of_file(tx, id_) if b.state.uncollected)
        is_unsent = file.state.replaceable and not open_batches and id_ not in watched
        unsettled.append(Unsettled(file, open_batches, watched.get(id_), is_unsent))
    return unsettled


def replace_unsent(tx: Transaction, file: RequestFile, remaining: RequestFileEntry | None) -> bool:
    """Replace an unsent file by one without the erased requests.

    Args:
        tx: The transaction. The caller holds the lease on the file, so no other process sends it.
        file: The file.
        remaining: The file with its remaining requests; `None` if none remain.

    Returns:
        False if the file is no longer unsent.
    """
    current = files.by_id(tx, file.id)
    if not current.state.replaceable:
        return False
    waiting = tx.execute(sa.select(wait.c.submission_id).where(wait.c.file_id == file.id)).scalars().all()
    move(tx, FileMove.SET_ASIDE, file.id, _REASON)
    if remaining is not None:
        why_held = current.error or remaining.why_held
        entry = replace(
            remaining,
            hold=current.hold,
            why_held=why_held,
            breakpoint=current.breakpoint,
            follows=current.follows,
            not_before=current.not_before,
        )
        submissions.add_files(tx, file.submission_id, [entry])
        stubs.replace_file(tx, file, remaining.id)
        pilots.replace_file(tx, file, remaining.id)
        for submission_id in waiting:
            submissions.add_waits(tx, submission_id, [remaining.id])
    return True


def rewritten(tx: Transaction, file: RequestFile, size: int, checksum: str | None) -> None:
    """Record the new content of a request file, after requests in it were replaced.

    Args:
        tx: The transaction.
        file: The file.
        size: The size in bytes of the HTTP body that it becomes.
        checksum: The SHA-256 of the file in hexadecimal; `None` if none was recorded.
    """
    tx.record(EntityKind.FILE, file.id, file.state, file.state, _REASON)
    tx.execute(sa.update(request_file).where(request_file.c.id == file.id).values(bytes=size, checksum=checksum))


def recounted(tx: Transaction, submission_id: str, rows: int, rejected: int, requests: int) -> None:
    """Record how many rows and requests are left in a submission."""
    values = {"rows": rows, "rejected": rejected, "requests": requests}
    tx.execute(sa.update(submission).where(submission.c.id == submission_id).values(**values))


def overwrite_freed(tx: Transaction) -> None:
    """Make SQLite overwrite what the transaction replaces. Other databases do so when they vacuum."""
    if tx.connection.dialect.name == "sqlite":
        tx.connection.exec_driver_sql("PRAGMA secure_delete=ON")


def replace_texts(tx: Transaction, texts: Mapping[str, str]) -> int:
    """Replace texts in everything that the ledger has written for readers, also in its history.

    Args:
        tx: The transaction.
        texts: What to write in place of each text, where it is a whole word.

    Returns:
        The number of values that changed.
    """
    changed = 0
    for column in _FOR_READERS:
        for key, value in dict(_values_with(tx, column, list(texts))).items():
            new = _whole_words(tuple(texts)).sub(lambda match: texts[match[0]], value)
            if new != value:
                row = sa.and_(*(part == of_row for part, of_row in zip(_row_of(column), key, strict=True)))
                tx.execute(sa.update(column.table).where(row).values({column.name: new}))
                changed += 1
    return changed


def columns_with(tx: Transaction, texts: Sequence[str]) -> list[str]:
    """Return the columns of all tables, as table.column, that have one of some texts as a whole word."""
    return [
        f"{column.table.name}.{column.name}"
        for column in _text_columns()
        if any(_whole_words(tuple(texts)).search(value) for _, value in _values_with(tx, column, texts))
    ]


def columns_naming(tx: Transaction, keys: Sequence[str]) -> list[str]:
    """Return the columns, as table.column, that name one of some row keys which are words of the ledger as well.

    Texts for readers have such a word without meaning the row, unless it is in quotes and not the name of a field.
    """
    words, wanted = _whole_words(tuple(keys)), frozenset(keys)
    quoted = re.compile(rf"(?P<quote>['\"])(?:{'|'.join(map(re.escape, keys))})(?P=quote)(?!:)")

    def is_named(column: sa.Column[str], value: str) -> bool:
        if column in _OF_ROWS:
            return words.search(value) is not None
        texts = values_in(json.loads(value)) if column in _JSON else [value]
        return any(text in wanted or quoted.search(text) for text in texts)

    return [
        f"{column.table.name}.{column.name}"
        for column in dict.fromkeys((*_FOR_READERS, *_OF_ROWS, *_JSON))
        if any(is_named(column, value) for _, value in _values_with(tx, column, keys))
    ]


@lru_cache(maxsize=1)  # long keys take seconds, so it is made for values that may have one, and once
def _whole_words(texts: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that finds texts which no letter or digit continues; the longest of several."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])")


def _values_with(
    tx: Transaction, column: sa.Column[str], texts: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the values of a column that have one of some texts anywhere, each with the primary key of its row.

    Of a long text only the start is looked for.
    """
    for start in range(0, len(texts), _TEXTS_OF_QUERY):
        some = [text[:_CHARACTERS_OF_QUERY] for text in texts[start : start + _TEXTS_OF_QUERY]]
        holds = sa.or_(*(column.contains(text, autoescape=True) for text in some))
        for row in tx.execute(sa.select(column, *_row_of(column)).where(holds)):
            yield tuple(row[1:]), str(row[0])


def _row_of(column: sa.Column[str]) -> list[sa.Column[Any]]:
    """Return the columns that identify a row of a column's table."""
    return list(column.table.primary_key.columns)


def _text_columns() -> Iterator[sa.Column[str]]:
    for table in metadata.sorted_tables:
        for column in table.columns:
            # Not the states, nor what refers to other rows.
            if isinstance(column.type, sa.String) and not column.foreign_keys:
                yield column
