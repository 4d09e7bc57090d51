"""Files that are no text at all, recognized by their first bytes."""

from __future__ import annotations

import re

_COMPRESSED = "the content is compressed with {}; let the name end in {{ending}}{}"
_PACKED = "the content is compressed with {}; unpack it, or compress it with gzip"
_TABLE = "the content is an {} file; convert it to Parquet"
_FOREIGN = {
    b"\x1f\x8b": _COMPRESSED.format("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd", ".zst"),
    b"BZh91AY&SY": _COMPRESSED.format("bzip2", ".bz2"),
    b"PK\x03\x04": "the content is a ZIP archive or an Excel workbook (.xlsx); unpack it, or save it as {kind}",
    b"\xd0\xcf\x11\xe0": "the content is an Excel workbook (.xls); save it as {kind}",
    b"PAR1": "the content is Parquet; let the name end in .parquet",
    b"\xfd7zXZ\0": _PACKED.format("xz"),
    b"7z\xbc\xaf\x27\x1c": _PACKED.format("7z"),
    b"\x04\x22\x4d\x18": _PACKED.format("lz4"),
    b"Rar!\x1a\x07": _PACKED.format("RAR"),
    b"ARROW1\0\0": _TABLE.format("Arrow"),
    b"Obj\x01": _TABLE.format("Avro"),
    b"SQLite format 3\0": "the content is an SQLite database; read it by a query",
    b"%PDF-": "the content is a PDF; save the table in it as {kind}",
    b"version https://git-lfs.github.com/": "the content is a pointer of Git LFS; get the file with git lfs pull",
    b"/annex/objects/": "the content is a pointer of git-annex; get the file with git annex get",
}
# Servers answer with a page where there is no file.
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|\?xml)[\s>]", re.IGNORECASE)


def foreign_content(head: bytes, ending: str) -> str | None:
    """Describe content that is not text, with what to do.

    Args:
        head: The beginning of a file.
        ending: The ending of the name of such files when they are not compressed, such as ".csv".

    Returns:
        `None` if it may be text.
    """
    kind = "JSON Lines" if "j" in ending else "CSV"
    if _PAGE.match(head):
        return "the content is a web page or XML, as servers send in place of a file; download the file again"
    problem = next((problem for start, problem in _FOREIGN.items() if head.startswith(start)), None)
    return problem.format(ending=ending, kind=kind) if problem is not None else None
