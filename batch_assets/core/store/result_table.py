"""What the file of results says of itself: key-value metadata of the Parquet file."""

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
    """The submission whose table has this schema; None for a table of a version that did not say."""
    said = (schema.metadata or {}).get(SUBMISSION.encode())
    return said.decode() if said is not None else None


def results_metadata(manifest: Manifest) -> dict[str, str]:
    """Where the rows come from.

    Returns:
        `batch_assets.pipeline`, `.partition`, `.submission`, `.row_key`, `.template_digest` (SHA-256 over params,
        output schema, headers and betas as the pipeline file had them: equal digests mean that every row was
        asked the same way, `render_request` excepted, of which it has the name only) and `.version`.
    """
    asked: list[object] = [manifest.params, manifest.output_schema, manifest.headers]
    if manifest.betas is not None:  # they depend on the row
        asked.append(manifest.betas)
    if manifest.render_request is not None:
        asked.append(manifest.render_request)
    return {
        _PREFIX + "pipeline": manifest.pipeline,
        _PREFIX + "partition": manifest.partition,
        SUBMISSION: manifest.submission,
        ROW_KEY: manifest.key,
        _PREFIX + "template_digest": hashlib.sha256(orjson.dumps(asked)).hexdigest(),
        _PREFIX + "version": version("batch-assets"),
    }
