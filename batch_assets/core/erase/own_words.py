"""Row keys that are words of our own files, such as `succeeded` or `ready`.

They occur in every root, whatever rows it has. So what counts is a value: not the name of a field, a column or a
table, and not the value of a field that can only have words of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cache

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from batch_assets.core.answers.result_columns import RESULT_NAMES, TOOL_CALLS
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.erase.search import Needles, leaves, ledger_files, search
from batch_assets.core.errors import ErrorType
from batch_assets.core.ledger.enum_column import EnumColumn
from batch_assets.core.ledger.fixed_words import values_in
from batch_assets.core.ledger.standstills import HistoryMark
from batch_assets.core.ledger.states import BatchMove, FileMove, SubmissionMove, SubmissionState
from batch_assets.core.ledger.tables import metadata
from batch_assets.core.root import Root
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.receipt import Receipt
from batch_assets.core.store.request_index import REASON
from batch_assets.core.store.resent import ResentUpload
from batch_assets.core.store.responses import RESPONSE_SCHEMA

_OF_THE_API = """
    assistant canceled canceling citations content custom_id document end_turn ended errored expired image
    in_progress input max_tokens message message_batch messages metadata model model_context_window_exceeded
    name null params pause_turn processing processing_status refusal request_counts result role service_tier
    signature stop_reason stop_sequence succeeded system temperature text thinking tool_choice tool_result
    tool_use tools type usage user
"""
_OF_FORMATS = """
    PAR1 ARROW:schema parquet-cpp-arrow version build created_by schema list element item key value key_value
    entries SQLite format sqlite_sequence sqlite_autoindex sqlite_master alembic_version version_num table
    index autoindex
"""
_OF_THE_HISTORY = "accepted answers attempt bound dropped erased held intent removed renamed reports rows stored"
_LONGEST = 50  # longer than any of them
# Columns of Parquet files that can have words of ours or of the API only, and those with the API's JSON.
_FIXED_COLUMNS = frozenset(("result_type", "error_type", "stop_reason", "response_model", REASON))
_JSON_COLUMNS = frozenset(("response_json",))


def is_own_word(key: str) -> bool:
    """Whether a row key is in files of every root, whatever its rows are."""
    needles = Needles.of([key], []) if len(key) <= _LONGEST else None
    return needles is not None and needles.are_in(_vocabulary())


@cache
def _vocabulary() -> pa.Array:
    """The names and the fixed words in our files, as texts."""
    tables = metadata.sorted_tables
    texts = [str(sa.schema.CreateTable(table)) for table in tables]
    texts += [str(index.name) for table in tables for index in table.indexes]
    columns = [column.type for table in tables for column in table.columns]
    kinds: list[type[StrEnum]] = [ResultType, ErrorType, HistoryMark, SubmissionState]
    kinds += [type_.kind for type_ in columns if isinstance(type_, EnumColumn)]
    texts += [word.value for kind in kinds for word in kind]
    texts += [move.event for moves in (FileMove, BatchMove, SubmissionMove) for move in moves]
    texts += [*RESULT_NAMES, TOOL_CALLS.name, *RESPONSE_SCHEMA.names]
    texts += [
        name for document in (Manifest, Receipt, ResentUpload, ErasedRecord) for name in document.model_fields
    ]
    return pa.array([*texts, _OF_THE_API, _OF_FORMATS, _OF_THE_HISTORY])


def search_values(root: Root, needles: Needles) -> list[tuple[str, ...]]:
    """Return the paths of the files under the root that have one of the texts as a value, without the ledger's."""
    of_ledger = set(map(str, ledger_files(root)))
    files = [parts for parts in search(root, needles) if root.storage.uri(*parts) not in of_ledger]
    return [parts for parts in files if _has_value(root, parts, needles)]


def _has_value(root: Root, parts: Sequence[str], needles: Needles) -> bool:
    """Whether one of the texts is in a value of a file, which may have it as a word of ours as well.

    Args:
        root: The root.
        parts: The path of the file.
        needles: The texts.
    """
    try:
        if parts[-1].endswith(".parquet"):
            with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as table:
                return any(_is_in_rows(rows, needles) for rows in table.iter_batches(4096, use_threads=False))
        if parts[-1].endswith((".json", ".jsonl")):
            with root.storage.open(*parts) as file:
                texts = file if parts[-1].endswith(".jsonl") else [file.read()]
                return any(_is_in_json(text, needles) for text in texts)
    except FileNotFoundError:  # another process has replaced it by now
        return False
    except (pa.ArrowException, OSError, ValueError):
        pass  # an unreadable file may have any text
    return True


def _is_in_rows(rows: pa.RecordBatch, needles: Needles) -> bool:
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        if name in _JSON_COLUMNS:
            if any(_is_in_json(text, needles) for text in column.to_pylist() if text is not None):
                return True
        elif name not in _FIXED_COLUMNS and any(needles.are_in(leaf) for leaf in leaves(column)):
            return True
    return False


def _is_in_json(text: bytes | str, needles: Needles) -> bool:
    texts = list(values_in(orjson.loads(text)))
    return bool(texts) and needles.are_in(pa.array(texts, pa.string()))
