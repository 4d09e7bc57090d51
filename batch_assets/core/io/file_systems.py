"""The file system of a URL, by fsspec. Credentials come from the environment, never from a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec

# The extra of this package that installs what fsspec needs, by the scheme of the URL.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "azure"),
}


def open_file_system(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Args:
        url: A local path or an fsspec URL.
        options: Arguments of the file system, which come before those of fsspec's own configuration.

    Raises:
        ImportError: When the package for the scheme is not installed. The text says what to install.
        ValueError: When no file system has this scheme.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **(options or {}))
    except ImportError as error:
        scheme = url.partition("://")[0]
        if (extra := _EXTRAS.get(scheme)) is None:
            raise
        raise ImportError(
            f"{scheme}:// needs a package that is not installed: pip install 'batch-assets[{extra}]' ({error})"
        ) from None
    return filesystem, path
