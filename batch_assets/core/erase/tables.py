"""Take erased rows out of the request index, the rejected rows, and the results table of a partition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.erase.found_rows import IndexedSubmission
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.dictionaries import with_used_values
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.parquet import TableWriter, reading_parquet
from batch_assets.core.io.storage import PARTITION_FOLDER
from batch_assets.core.ledger import erasure, leases
from batch_assets.core.root import Root
from batch_assets.core.store.digest_set import DigestSet
from batch_assets.core.store.key_texts import key_texts, positions_among
from batch_assets.core.store.manifest import MANIFEST
from batch_assets.core.store.request_index import DIGEST, REASON
from batch_assets.core.store.responses import digest_array
from batch_assets.core.store.result_table import ROW_KEY, noted_completeness
from batch_assets.core.store.row_hashes import ROW_HASHES, remove_row_hashes

_REJECTED, _INDEX = "rejected.parquet", "index.parquet"


@contextmanager
def results_lease(root: Root, pipeline: str, partition: str) -> Iterator[leases.Lease]:
    """Hold the lease on a partition's results: no other process joins its index or writes its table."""
    work = f"the results of {pipeline}{f' [{partition}]' if partition else ''}"
    name = f"results:{pipeline}:{partition}"
    with leases.hold(root.ledger, name, wait=leases.PATIENCE, work=work, pipeline=pipeline) as lease:
        yield lease


def remove_from_submission(root: Root, submission: IndexedSubmission, keys: Sequence[str]) -> None:
    """Remove rows from a submission: from its rejected rows, its counts, and last its index, which finds them."""
    manifest, column = submission.manifest, submission.column
    folder = submission_parts(manifest.pipeline, manifest.partition, manifest.submission)
    with results_lease(root, manifest.pipeline, manifest.partition) as lease:
        for name in (
            _REJECTED,
            _INDEX,
            MANIFEST,
            ROW_HASHES,
        ):  # a killed erasure of other rows may have left a copy
            root.storage.remove_leftovers(*folder, name=name)
        remove_row_hashes(root.storage, folder)
        if root.storage.exists(*folder, _REJECTED):
            _rewrite(root, (*folder, _REJECTED), manifest.key, _own_keys(submission, keys), lease)
        _record_counts(root, submission, keys)
        _rewrite(root, (*folder, _INDEX), column, keys, lease)


def _own_keys(submission: IndexedSubmission, keys: Sequence[str]) -> list[str]:
    """Return the keys that rows had in a submission: another column may have been the row key at that time."""
    key_column = submission.manifest.key
    if key_column == submission.column:
        return list(keys)
    named: list[str] = []
    for rows in submission.index.slices([submission.column, key_column]):
        mask = pa.array(positions_among(rows.column(submission.column), keys) >= 0)
        named += [text for text in key_texts(rows.column(key_column).filter(mask))[0] if text is not None]
    return named


def _rewrite(root: Root, parts: tuple[str, ...], column: str, keys: Sequence[str], lease: leases.Lease) -> None:
    """Write a Parquet file again without the rows of some keys."""
    with (
        reading_parquet(root.storage.uri(*parts), "Restore it from a backup"),
        pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file,
    ):
        if column not in file.schema_arrow.names:
            return
        with root.storage.write(*parts) as scratch:
            with TableWriter(scratch, file.schema_arrow) as writer:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, use_threads=False)
                    writer.write(with_used_values(table.filter(pa.array(~_are(table, column, keys)))))
            lease.check()


def _are(table: pa.Table, column: str, keys: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each row is that of one of the keys: bool, shape (n,)."""
    masks = [positions_among(chunk, keys) >= 0 for chunk in table.column(column).chunks]
    mask: NDArray[np.bool_] = np.concatenate([np.empty(0, bool), *masks])
    return mask


def _record_counts(root: Root, submission: IndexedSubmission, keys: Sequence[str]) -> None:
    """Write into manifest and ledger how many rows and requests a submission has without the erased rows."""
    rows = rejected = 0
    requests = DigestSet()
    for slice_ in submission.index.slices([submission.column, DIGEST, REASON]):
        others = slice_.filter(pa.array(positions_among(slice_.column(submission.column), keys) < 0))
        rows += len(others)
        rejected += len(others) - others.column(REASON).null_count
        requests.add(digest_array(others.column(DIGEST).drop_null()))
    old = submission.manifest
    manifest = old.read(root.storage, old.pipeline, old.partition, old.submission)
    counts = {"rows": rows, "rejected": rejected, "requests": len(requests)}
    manifest.model_copy(update=counts).write(root.storage)
    with root.ledger.write(old.pipeline) as tx:
        erasure.recounted(tx, submission.id, rows, rejected, len(requests))


def results_with(
    root: Root, pipeline: str, keys: Sequence[str], problems: list[str] | None = None
) -> list[tuple[str, ...]]:
    """Return the paths of the results tables that have a row of the keys, or name one in `shared_with`.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        keys: The row keys.
        problems: Filled with a text about each table that cannot be read.
    """
    with_rows = []
    for parts in _results_tables(root, pipeline):
        try:
            if _has(root, parts, keys):
                with_rows.append(parts)
        except DamagedFileError as error:
            if problems is not None:
                problems.append(str(error))
    return with_rows


def _results_tables(root: Root, pipeline: str) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all tables of results, also those that were moved aside."""
    for name in root.storage.names(pipeline):
        if name not in ("requests", "responses"):
            yield from _tables_in(root, (pipeline, name))


def _tables_in(root: Root, folder: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name in root.storage.names(*folder):
        if name.endswith(".parquet"):
            yield (*folder, name)
        else:
            yield from _tables_in(root, (*folder, name))


def _has(root: Root, parts: tuple[str, ...], keys: Sequence[str]) -> bool:
    with (
        reading_parquet(root.storage.uri(*parts), "Remove it: it is written again"),
        pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file,
    ):
        columns = _naming(file.schema_arrow)
        slices = file.iter_batches(columns=columns, use_threads=False)
        return any(
            bool((positions_among(rows.column(name), keys) >= 0).any()) for rows in slices for name in columns
        )


def _naming(schema: pa.Schema) -> list[str]:
    """Return the columns of a results table that name rows."""
    key = (schema.metadata or {}).get(ROW_KEY.encode(), b"").decode()
    return [name for name in (key, "shared_with") if name in schema.names]


def remove_from_results(root: Root, parts: tuple[str, ...], keys: Sequence[str]) -> None:
    """Remove rows from a table that the join did not write again, such as that of an unfinished refresh."""
    with (
        results_lease(root, parts[0], partition_of(parts)) as lease,
        reading_parquet(root.storage.uri(*parts), "Remove it: it is written again"),
        pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file,
        root.storage.write(*parts) as scratch,
    ):
        with TableWriter(scratch, file.schema_arrow) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                writer.write(with_used_values(_without_names(table, keys)))
            writer.note(noted_completeness(file))
        lease.check()


def _without_names(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return a results table without the rows of some keys. The next join names other rows in `shared_with`."""
    for name in _naming(table.schema):
        mask = pa.array(_are(table, name, keys))
        if name == "shared_with":
            at = table.schema.get_field_index(name)
            cleared = pc.if_else(mask, pa.scalar(None, pa.string()), table.column(at))
            table = table.set_column(at, table.schema.field(at), cleared)
        else:
            table = table.filter(pc.invert(mask))
    return table


def partition_of(parts: tuple[str, ...]) -> str:
    """Return the partition key in the path of a results table; "" without partitions."""
    folders = [part for part in parts if part.startswith(PARTITION_FOLDER)]
    return unquote(folders[0].removeprefix(PARTITION_FOLDER)) if folders else ""
