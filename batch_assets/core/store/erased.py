"""The record of erased rows: salted hashes of their keys, and the batches that are still to be deleted for them.

It is beside the pipeline's files, because a lost ledger must not bring an erased row back. No one can read a key
from it, but whoever has it and a list of keys can find out which of them were erased: that is its purpose.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.key_texts import is_text, key_texts, value_text

_PARTS = ("erasures", "keys.json")
_REJECT = (ErrorType.ERASED.value, "the row was erased, and is not sent again")


# The kinds of columns that keys are erased from. In a column of texts, another form is another key: 007 is not 7.
# So a key of texts or whole numbers is found by its value only where the dataset's column is not of texts.
_EXACT, _ANY_FORM = "text", "value"


def _kind(type_: pa.DataType) -> str:
    return _EXACT if is_text(type_) or pa.types.is_integer(type_) else _ANY_FORM


class WorstCases(BaseModel):
    """The most that a request can cost, in picodollars by the prices when it was erased; `None` without a bound.

    Attributes:
        batch: In a batch.
        cached: In a batch, if it may write the prompt cache.
        live: As a live call.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    batch: int | None
    cached: int | None
    live: int | None

    def of(self, *, writes_cache: bool, is_live: bool) -> int | None:
        """Return that of one way to ask it."""
        if is_live:
            return self.live
        return self.cached if writes_cache else self.batch


class ErasedRecord(BaseModel):
    """The rows that were erased from a pipeline.

    Attributes:
        salt: A random text that the hashes depend on.
        keys: The hashes of the erased row keys.
        values: The hashes of the numbers, times and durations that these keys are, however a file writes them. The
            key column may get another type, for example because of one new row with a text as its key.
        columns: The columns of the dataset that were the row key when they were erased.
        batches: The ids of batches that hold an erased row and are not deleted at the API yet.
        waiting: The hashes of the keys whose rows are not erased yet: their requests are in flight.
        worst_cases: The most that each erased request can have cost, by the custom_id of what took its place. It
            counts for requests that may be billed and whose answers are not stored.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    salt: str
    keys: list[str] = []
    values: list[str] = []
    columns: list[str] = []
    batches: list[str] = []
    waiting: list[str] = []
    worst_cases: dict[str, WorstCases] = {}

    @classmethod
    def read(cls, storage: Storage, pipeline: str) -> ErasedRecord | None:
        """Read a pipeline's record; `None` if nothing was ever erased.

        Raises:
            DamagedFileError: When it is not a record: without it, an erased row might be sent again.
        """
        try:
            return read_document(storage, (pipeline, *_PARTS), cls)
        except FileNotFoundError:
            return None

    @classmethod
    def new(cls) -> ErasedRecord:
        """Make an empty record with a salt of its own."""
        return cls(salt=secrets.token_hex(32))

    def write(self, storage: Storage, pipeline: str) -> None:
        """Write the record atomically."""
        storage.write_bytes(self.model_dump_json(indent=2).encode() + b"\n", pipeline, *_PARTS)

    def hash_of(self, key: str) -> str:
        """Return the salted hash of a row key."""
        text = key.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=32, key=self.salt.encode()).hexdigest()

    def hashes_of_value(self, key: str, kinds: Iterable[str]) -> list[str]:
        """Return the salted hashes of the number, time, duration or truth value that a key is; none if it is none.

        Args:
            key: The row key, in any form.
            kinds: The kinds of columns that it may have been erased from. There is a hash for each.
        """
        value = value_text(key)
        return [self.hash_of(f"{kind}\0{value}") for kind in kinds] if value is not None else []

    def with_keys(self, keys: Sequence[str], column: str, types: Collection[pa.DataType] = ()) -> ErasedRecord:
        """Return the record with further keys, whose rows wait to be erased.

        Args:
            keys: The keys.
            column: The column of the dataset that has them.
            types: The types that it had in the submissions; none if there was no submission.
        """
        hashes = dict.fromkeys([*self.keys, *map(self.hash_of, keys)])
        kinds = sorted({_kind(type_) for type_ in types}) or [_EXACT]
        values = [value for key in keys for value in self.hashes_of_value(key, kinds)]
        columns = dict.fromkeys([*self.columns, column])
        waiting = dict.fromkeys([*self.waiting, *map(self.hash_of, keys)])
        changed = {"keys": hashes, "columns": columns, "waiting": waiting}
        changed["values"] = dict.fromkeys([*self.values, *values])
        return self.model_copy(update={name: list(entries) for name, entries in changed.items()})

    def without_waiting(self, keys: Iterable[str]) -> ErasedRecord:
        """Return the record after the rows of some keys were erased."""
        erased = set(map(self.hash_of, keys))
        return self.model_copy(update={"waiting": [hash_ for hash_ in self.waiting if hash_ not in erased]})

    def with_worst_cases(self, worst_cases: Mapping[str, WorstCases]) -> ErasedRecord:
        """Return the record with the worst cases of further requests."""
        return self.model_copy(update={"worst_cases": {**self.worst_cases, **worst_cases}})

    def with_batches(self, batch_ids: Iterable[str]) -> ErasedRecord:
        """Return the record with these batches in place of those that it has."""
        return self.model_copy(update={"batches": sorted(set(batch_ids))})


class ErasedRows:
    """Hides the erased rows of a dataset: of such a row only the key is left, and the row is rejected.

    Args:
        record: The pipeline's record; `None` if nothing was erased.
        key: The column of the row key.
        names: The columns of the dataset.

    Attributes:
        reads: The columns that it needs: the row key, and earlier row keys that the dataset still has.
        missing: The earlier row keys that the dataset no longer has. Their rows cannot be recognized.
    """

    def __init__(self, record: ErasedRecord | None, key: str, names: Collection[str]) -> None:
        self._record, self._key = record, key
        earlier = [column for column in (record.columns if record is not None else ()) if column != key]
        self.reads = [key, *(column for column in earlier if column in names)]
        self.missing = [column for column in earlier if column not in names]
        self._hashes = frozenset(record.keys) if record is not None else frozenset()
        self._values = frozenset(record.values) if record is not None else frozenset()

    def hide(self, rows: Rows) -> None:
        """Reject the erased rows, and replace their values by null. Other rows do not change."""
        if self._record is None or not self._hashes:
            return
        columns = [rows.table.column(name) for name in self.reads]
        # A key may have been erased as results carried it before, such as a month as its number.
        former = [name for name in self.reads if name in rows.carried_before]
        columns += [pa.array(rows.values_at_first(name)) for name in former]
        positions = {at for column in columns for at in self._positions(column)}
        if not positions:
            return
        rows.rejects.update(dict.fromkeys(positions, _REJECT))
        kept = pa.array([None if at in positions else at for at in range(len(rows.table))], pa.int64())
        columns = [
            column if name == self._key else column.take(kept)
            for name, column in zip(rows.table.schema.names, rows.table.columns, strict=True)
        ]
        schema = pa.schema([field.with_nullable(True) for field in rows.table.schema])
        rows.table = pa.RecordBatch.from_arrays(columns, schema=schema)

    def _positions(self, keys: pa.Array) -> set[int]:
        record = self._record
        assert record is not None
        hash_of, hashes, values = record.hash_of, self._hashes, self._values
        kinds = (_ANY_FORM,) if is_text(keys.type) else (_ANY_FORM, _EXACT)
        return {
            position
            for texts in key_texts(keys)
            for position, text in enumerate(texts)
            if text is not None
            and (
                hash_of(text) in hashes or (values and not values.isdisjoint(record.hashes_of_value(text, kinds)))
            )
        }
