"""Find the rows to erase in the request indexes of a pipeline, and the other rows that have their requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.recovery.found_files import submission_folders
from batch_assets.core.store.digests import SLUG_CHARACTERS, Digests, pack, slug
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.key_texts import key_texts, positions_among
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.responses import digest_array
from batch_assets.core.text import count

_UNKNOWN = "whether its submission has the row is unknown"


@dataclass(frozen=True)
class KeyColumn:
    """The column by which the user names rows.

    Attributes:
        name: Its name in results.
        column: Its name in the dataset.
    """

    name: str
    column: str


@dataclass(frozen=True)
class IndexedSubmission:
    """A submission with a readable index.

    Attributes:
        manifest: Its manifest.
        index: Its index.
        column: The column of the index with the row keys that the user names.
    """

    manifest: Manifest
    index: RequestIndex
    column: str

    @property
    def partition(self) -> str:
        return self.manifest.partition

    @property
    def id(self) -> str:
        return self.manifest.submission


@dataclass
class FoundRows:
    """The rows of some keys in all submissions of a pipeline.

    Attributes:
        keys: The row keys, as the user names them.
        submissions: The submissions whose index has one of the rows.
        sharing: Further submissions with another row that has one of the requests.
        requests: The digests of the rows' requests, each with the positions of the keys that have it.
        shared: The row key of another row with the request, by digest.
        known: The positions of the keys that an index has.
        slugs: The slugs of these keys that rows with other keys have too.
        problems: What could not be read, as texts.
    """

    keys: Sequence[str]
    submissions: list[IndexedSubmission] = field(default_factory=list)
    sharing: list[IndexedSubmission] = field(default_factory=list)
    requests: dict[bytes, set[int]] = field(default_factory=lambda: defaultdict(set))
    shared: dict[bytes, Any] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    slugs: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def digests(self) -> Digests:
        """The digests of the rows' requests: S16, shape (n,), sorted."""
        return np.sort(pack(self.requests))

    @property
    def partitions(self) -> list[str]:
        """The partitions whose results may have the rows, or show a custom_id with their key."""
        return sorted({s.partition for s in [*self.submissions, *self.sharing]})


def manifests_of(storage: Storage, pipeline: str) -> tuple[list[Manifest], list[str]]:
    """Read the manifests of a pipeline's submissions.

    Returns:
        The manifests, and a text about each unreadable one: whether its submission has the row is unknown.
    """
    manifests, problems = [], []
    for partition, submission_id in submission_folders(storage, pipeline):
        try:
            manifests.append(Manifest.read(storage, pipeline, partition, submission_id))
        except (MissingFileError, DamagedFileError) as error:
            problems.append(f"{error}: {_UNKNOWN}")
    return manifests, problems


def find_rows(storage: Storage, manifests: Sequence[Manifest], key: KeyColumn, keys: Sequence[str]) -> FoundRows:
    """Find the rows of some keys.

    Args:
        storage: The storage of the root.
        manifests: The manifests of all submissions.
        key: The column by which the user names rows.
        keys: The row keys.
    """
    targets = FoundRows(keys)
    indexed = list(_indexed(storage, manifests, key, targets.problems))
    for submission in indexed:
        if _note_rows(submission, targets):
            targets.submissions.append(submission)
    with_rows = {submission.id for submission in targets.submissions}
    targets.problems += _without_key([m for m in manifests if m.submission not in with_rows], key)
    digests = targets.digests
    if len(digests):
        for submission in indexed:
            if _note_sharing(submission, digests, targets) and submission.id not in with_rows:
                targets.sharing.append(submission)
    return targets


def key_types(storage: Storage, manifests: Sequence[Manifest], key: KeyColumn) -> list[pa.DataType]:
    """Return the types that the row keys have in the indexes.

    Args:
        storage: The storage of the root.
        manifests: The manifests of all submissions.
        key: The column by which the user names rows.
    """
    types: list[pa.DataType] = []
    for submission in _indexed(storage, manifests, key, []):
        type_ = submission.index.schema.field(submission.column).type
        types += [type_] if type_ not in types else []
    return types


def keys_on_record(
    storage: Storage, manifests: Sequence[Manifest], key: KeyColumn, record: ErasedRecord
) -> list[str]:
    """Return the keys that wait to be erased, as far as an index still has them.

    Args:
        storage: The storage of the root.
        manifests: The manifests of all submissions.
        key: The column by which the user names rows.
        record: The record, which has their hashes.
    """
    waiting, keys = frozenset(record.waiting), {}
    for submission in _indexed(storage, manifests, key, []):
        for rows in submission.index.slices([submission.column]):
            for texts in key_texts(rows.column(0)):
                texts_of_keys = (text for text in texts if text is not None and record.hash_of(text) in waiting)
                keys.update(dict.fromkeys(texts_of_keys))
    return list(keys)


def _indexed(
    storage: Storage, manifests: Sequence[Manifest], key: KeyColumn, problems: list[str]
) -> Iterator[IndexedSubmission]:
    for manifest in manifests:
        try:
            index = RequestIndex(storage, manifest.pipeline, manifest.partition, manifest.submission)
        except (MissingFileError, DamagedFileError) as error:
            problems.append(f"{error}: {_UNKNOWN}")
            continue
        column = _column(manifest, key)
        if column in index.schema.names:
            yield IndexedSubmission(manifest, index, column)


def _column(manifest: Manifest, key: KeyColumn) -> str:
    """Return the column of an index with the current row keys. The key at that time may be another column."""
    if manifest.key in (key.name, key.column):
        return manifest.key
    return (manifest.carried or {}).get(key.column, manifest.key if manifest.key != ROW_NUMBER else "")


def _without_key(manifests: Sequence[Manifest], key: KeyColumn) -> Iterator[str]:
    """Yield a text about the submissions that have another row key, and not the column that is the row key now."""
    others: dict[str, list[str]] = defaultdict(list)
    for manifest in manifests:
        if manifest.key not in (key.name, key.column) and key.column not in (manifest.carried or {}):
            others[manifest.key].append(manifest.submission)
    for column, ids in others.items():
        remedy = f". If it had a value of {column}, erase that key as well" if column != ROW_NUMBER else ""
        yield (
            f"{count(len(ids), 'submission')} with the row key {column} and without the column {key.column}, "
            f"such as {ids[-1]}: {_UNKNOWN}{remedy}"
        )


def _note_rows(submission: IndexedSubmission, targets: FoundRows) -> bool:
    """Record the requests of a submission's rows with the keys. Returns whether it has such rows."""
    has_rows = False
    unlike = pa.array([slug(key) for key in targets.keys if slug(key) != key], pa.string())
    for rows in submission.index.slices([submission.column, DIGEST]):
        positions = positions_among(rows.column(submission.column), targets.keys)
        mask = positions >= 0
        if len(unlike):
            targets.slugs |= _slugs_among(rows.column(submission.column).filter(pa.array(~mask)), unlike)
        if not mask.any():
            continue
        has_rows = True
        targets.known.update(positions[mask].tolist())
        digests = rows.column(DIGEST).filter(pa.array(mask)).to_pylist()
        for digest, position in zip(digests, positions[mask].tolist(), strict=True):
            if digest is not None:
                targets.requests[digest].add(position)
    return has_rows


def _slugs_among(keys: pa.Array, slugs: pa.Array) -> set[str]:
    """Return those of some slugs that row keys have.

    Args:
        keys: Row keys of any type.
        slugs: The slugs; strings.
    """
    starts = pc.replace_substring_regex(pa.array(key_texts(keys)[0], pa.string()), "[^a-zA-Z0-9_-]", "_")
    starts = pc.utf8_slice_codeunits(starts, 0, SLUG_CHARACTERS)
    return set(starts.filter(pc.is_in(starts, value_set=slugs)).to_pylist())


def _note_sharing(submission: IndexedSubmission, digests: Digests, targets: FoundRows) -> bool:
    """Record the other rows of a submission with these requests. Returns whether it has such rows."""
    key, has_rows = submission.manifest.key, False
    for rows in submission.index.slices(list(dict.fromkeys([submission.column, key, DIGEST]))):
        mask = is_among(rows.column(DIGEST), digests)
        if not mask.any():
            continue
        mask &= positions_among(rows.column(submission.column), targets.keys) < 0
        others = rows.filter(pa.array(mask))
        for digest, other in zip(others.column(DIGEST).to_pylist(), others.column(key).to_pylist(), strict=True):
            targets.shared.setdefault(digest, other)
            has_rows = True
    return has_rows


def is_among(column: pa.Array | pa.ChunkedArray, digests: Digests) -> NDArray[np.bool_]:
    """Whether each digest of a column is among some digests: bool, shape (n,). Null is not.

    Args:
        column: Digests, binary, length n.
        digests: S16, shape (m,).
    """
    valid = column.is_valid().to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else None
    if valid is None:
        return is_among(pa.concat_arrays([*column.chunks, pa.array([], column.type)]), digests)
    mask = np.zeros(len(column), dtype=bool)
    mask[valid] = np.isin(digest_array(column.drop_null()), digests)
    return mask
