"""What the file of results says of itself: key-value metadata of the Parquet file."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import orjson
import pyarrow as pa

from batch_assets.core.store.request_index import HOOK, Manifest

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
    content = manifest.content
    asked = [content.get("params"), content["output_schema"], content["headers"]]
    if "betas" in content:  # they depend on the row
        asked.append(content["betas"])
    if HOOK in content:
        asked.append(content[HOOK])
    said = {
        ROW_KEY: manifest.key,
        _PREFIX + "template_digest": hashlib.sha256(orjson.dumps(asked)).hexdigest(),
        _PREFIX + "version": version("batch-assets"),
    }
    return {_PREFIX + name: str(content[name]) for name in ("pipeline", "partition", "submission")} | said
