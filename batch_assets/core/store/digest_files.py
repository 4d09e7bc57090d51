"""The digests of a request file's requests, in a file beside it: 16 bytes for each request.

It is a copy of what the request file says. Whatever asks which requests are in flight reads it in place of the
whole request file. A file that is missing, damaged or made from another content of the request file counts as
missing: the request file is read, and the digests are written again.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from batch_assets.core.errors import StorageError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.store.digests import DIGEST_BYTES, Digests

# The file: this mark, the SHA-256 of the request file, a checksum of the digests, and the digests in order.
_MARK = b"digests1"
_SHA256_BYTES, _CHECKSUM_BYTES = 32, 16
_HEAD_BYTES = len(_MARK) + _SHA256_BYTES + _CHECKSUM_BYTES


def write_digests(
    storage: Storage, folder: tuple[str, ...], name: PartName, digests: Digests, checksum: str
) -> None:
    """Write the digests of a request file beside it, atomically.

    Args:
        storage: The storage of the root.
        folder: The path of the submission's folder.
        name: The name of the request file.
        digests: The digests of its requests, in order: S16, shape (n,).
        checksum: The SHA-256 of the request file in hexadecimal.
    """
    content = np.ascontiguousarray(digests).tobytes()
    head = _MARK + bytes.fromhex(checksum) + _checksum(content)
    parts = (*folder, name.digests)
    if storage.is_blocked(*parts):
        storage.rename(parts, (*folder, f"{name.digests}.damaged"))
    storage.write_bytes(head + content, *parts)


def read_digests(storage: Storage, file: RequestFile) -> Digests | None:
    """Read the digests beside a request file: S16, shape (n,), in order.

    Returns:
        `None` if they are missing or damaged, or if nothing shows that they are those of the file: the ledger does
        not know the checksum of the file, or it is another one.
    """
    if file.checksum is None:
        return None
    try:
        content = storage.read_bytes(*_parts(file))
    except (OSError, StorageError):  # the request file has them too
        return None
    head, digests = content[:_HEAD_BYTES], content[_HEAD_BYTES:]
    if head != _MARK + bytes.fromhex(file.checksum) + _checksum(digests):
        return None
    if len(digests) != file.requests * DIGEST_BYTES:
        return None
    return np.frombuffer(digests, f"S{DIGEST_BYTES}")


def remove_digests(storage: Storage, folder: tuple[str, ...], name: PartName) -> None:
    """Remove the digests beside a request file. Whoever needs them makes them again."""
    storage.remove(*folder, name.digests)


def _parts(file: RequestFile) -> tuple[str, ...]:
    folder = submission_parts(file.pipeline, file.partition, file.submission_id)
    return (*folder, PartName.parse(file.name).digests)


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
