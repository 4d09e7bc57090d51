"""The key-value metadata in the Parquet file of results."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import orjson
import pyarrow as pa

from batch_assets.core.store.manifest import Manifest

_PREFIX = "batch_assets."
ROW_KEY = _PREFIX + "row_key"
SUBMISSION = _PREFIX + "submission"


def submission_of(schema: pa.Schema) -> str | None:
    """Return the id of the submission in a table's metadata; `None` for a table of an early version without it."""
    submission_id = (schema.metadata or {}).get(SUBMISSION.encode())
    return submission_id.decode() if submission_id is not None else None


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
