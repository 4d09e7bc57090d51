"""Files that are no text at all, recognized by their first bytes."""

from __future__ import annotations

_COMPRESSED = "the content is compressed with {}; let the name end in {{ending}}{}"
_FOREIGN = {
    b"\x1f\x8b": _COMPRESSED.format("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd", ".zst"),
    b"BZh91AY&SY": _COMPRESSED.format("bzip2", ".bz2"),
    b"PK\x03\x04": "the content is a ZIP archive or an Excel workbook (.xlsx); unpack it, or save it as {kind}",
    b"\xd0\xcf\x11\xe0": "the content is an Excel workbook (.xls); save it as {kind}",
    b"PAR1": "the content is Parquet; let the name end in .parquet",
}


def foreign_content(head: bytes, ending: str) -> str | None:
    """Describe content that is not text, with what to do.

    Args:
        head: The beginning of a file.
        ending: The ending of the name of such files when they are not compressed, such as ".csv".

    Returns:
        `None` if it may be text.
    """
    kind = "JSON Lines" if "j" in ending else "CSV"
    problem = next((problem for start, problem in _FOREIGN.items() if head.startswith(start)), None)
    return problem.format(ending=ending, kind=kind) if problem is not None else None
