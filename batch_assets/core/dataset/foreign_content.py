"""Files that are no text at all, recognized by their first bytes."""

from __future__ import annotations

_COMPRESSED = "the content is compressed with {}; let the name end in {}"
_FOREIGN = {
    b"\x1f\x8b": _COMPRESSED.format("gzip", ".csv.gz"),
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd", ".csv.zst"),
    b"BZh91AY&SY": _COMPRESSED.format("bzip2", ".csv.bz2"),
    b"PK\x03\x04": "the content is a ZIP archive or an Excel workbook (.xlsx); unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "the content is an Excel workbook (.xls); save it as CSV",
    b"PAR1": "the content is Parquet; let the name end in .parquet",
}


def foreign_content(head: bytes) -> str | None:
    """Describe content that is not text, with what to do.

    Args:
        head: The beginning of a file.

    Returns:
        `None` if it may be text.
    """
    return next((problem for start, problem in _FOREIGN.items() if head.startswith(start)), None)
