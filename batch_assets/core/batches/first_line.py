"""Read the first line of a batch's results, which shows whose batch it is."""

from __future__ import annotations

from batch_assets.core.api.errors import ApiError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.io.json_text import load_line
from batch_assets.core.root import Root

# A first line longer than this proves nothing: no answer is that long.
_FIRST_LINE_BYTES = 64 << 20


def first_custom_id(root: Root, batch: BatchObject) -> str | None:
    """Return the first custom_id in an ended batch's results.

    Returns:
        `None` if they cannot be read.
    """
    received = bytearray()
    try:
        with root.api.results(batch.id) as chunks:
            for chunk in chunks:
                received += chunk
                if b"\n" in chunk or len(received) > _FIRST_LINE_BYTES:
                    break
        custom_id = load_line(bytes(received).split(b"\n", 1)[0])["custom_id"]
    except (ApiError, ValueError, KeyError, TypeError):
        return None
    return str(custom_id)
