"""The key-value metadata in the Parquet file of results."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.io.layout import results_parts, waiting_parts
from batch_assets.core.io.parquet import UNREADABLE
from batch_assets.core.io.slices import slices_of
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import Submission
from batch_assets.core.store.manifest import Manifest

_PREFIX = "batch_assets."
ROW_KEY = _PREFIX + "row_key"
SUBMISSION = _PREFIX + "submission"
_COMPLETE = _PREFIX + "complete"


def submission_of(schema: pa.Schema) -> str | None:
    """Return the id of the submission in a table's metadata; `None` for a table of an early version without it."""
    submission_id = (schema.metadata or {}).get(SUBMISSION.encode())
    return submission_id.decode() if submission_id is not None else None


def table_of(submission: Submission) -> tuple[str, ...]:
    """Return the path of the table that the last join of a submission wrote."""
    parts = waiting_parts if submission.held_back else results_parts
    return parts(submission.pipeline, submission.partition)


def completeness(*, is_complete: bool) -> dict[str, str]:
    """Return the metadata that says whether a table is complete: `batch_assets.complete`."""
    return {_COMPLETE: "true" if is_complete else "false"}


def noted_completeness(table: pq.ParquetFile) -> dict[str, str]:
    """Return what a table notes about its completeness; nothing for a table of an earlier version."""
    noted = (table.metadata.metadata or {}).get(_COMPLETE.encode())
    return {} if noted is None else {_COMPLETE: noted.decode()}


def is_complete(storage: Storage, parts: tuple[str, ...]) -> bool:
    """Whether there is a complete table: each row has its final result, and a cancel left none without an answer.

    Tables of earlier versions do not say so. They are complete without pending rows.

    Args:
        storage: The root.
        parts: The path of the table.

    Returns:
        False also for a file that cannot be read, so that it is replaced.
    """
    try:
        with pq.ParquetFile(storage.open(*parts), pre_buffer=False) as table:
            if noted := noted_completeness(table):
                return noted == completeness(is_complete=True)
            slices = slices_of(table, ["result_type"])
            return not any(ResultType.PENDING in rows.column(0).unique().to_pylist() for rows in slices)
    except (*UNREADABLE, KeyError):
        return False


def results_metadata(manifest: Manifest) -> dict[str, str]:
    """Return the metadata that says where the rows come from.

    Returns:
        `batch_assets.pipeline`, `.partition`, `.submission`, `.row_key`, `.template_digest` and `.version`. The
        template digest is SHA-256 over the params without secrets, output schema, headers and betas in the
        pipeline file. Equal digests mean that the requests of all rows were built the same way. The exception is
        `render_request`, of which the digest covers only the name.
    """
    template: list[object] = [manifest.params, manifest.output_schema, manifest.headers]
    if manifest.betas is not None:  # the betas depend on the row, and are not in `headers`
        template.append(manifest.betas)
    if manifest.render_request is not None:
        template.append(manifest.render_request)
    return {
        _PREFIX + "pipeline": manifest.pipeline,
        _PREFIX + "partition": manifest.partition,
        SUBMISSION: manifest.submission,
        ROW_KEY: manifest.key,
        _PREFIX + "template_digest": hashlib.sha256(orjson.dumps(template)).hexdigest(),
        _PREFIX + "version": version("batch-assets"),
    }
