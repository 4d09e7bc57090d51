"""The file system of a URL, by fsspec. Credentials come from the environment, never from a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec

OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"))
"""The schemes of object stores."""
# The extra of this package that installs what fsspec needs, by the scheme of the URL.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
}


def open_file_system(
    url: str, options: Mapping[str, Any] | None = None, *, keeps_listings: bool = True
) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Args:
        url: A local path or an fsspec URL.
        options: Arguments of the file system, which come before those of fsspec's own configuration.
        keeps_listings: Whether an object store may answer from what it listed before. Other file systems do so
            until their cache is invalidated.

    Raises:
        ImportError: When the package for the scheme is not installed. The text says what to install.
        ValueError: When no file system has this scheme.
    """
    scheme = url.partition("://")[0]
    own = {} if keeps_listings or scheme not in OBJECT_STORES else {"use_listings_cache": False}
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **{**own, **(options or {})})
    except ImportError as error:
        if (extra := _EXTRAS.get(scheme)) is None:
            raise
        raise ImportError(
            f"{scheme}:// needs a package that is not installed: pip install 'batch-assets[{extra}]' ({error})"
        ) from None
    return filesystem, path


def is_object_store(fs: Any) -> bool:
    """Whether a file system is an object store. One that keeps copies of its files is not."""
    return bool(_protocols_of(fs) & OBJECT_STORES)


def has_folder_marks(fs: Any) -> bool:
    """Whether folders may be empty blobs in an object store: on Azure, with a hierarchical namespace."""
    return "abfs" in _protocols_of(fs)


def has_prefixes(fs: Any) -> bool:
    """Whether `find` lists what is in a folder by its prefix: s3fs does, unless it keeps listings."""
    keeps_listings = getattr(getattr(fs, "dircache", None), "use_listings_cache", True)
    return type(fs).__module__.startswith("s3fs") and not keeps_listings


def _protocols_of(fs: Any) -> set[str]:
    # A file system that caches another one gives the protocol of that one, but not as its class.
    protocol = type(fs).protocol
    return {protocol} if isinstance(protocol, str) else set(protocol)
