"""Search everything under the root, and the ledger, for what is left of erased rows."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets.core.io.parquet import UNREADABLE
from batch_assets.core.ledger import erasure
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.root import Root
from batch_assets.core.store.digests import slug

_CHUNK = 1 << 20
# Shorter texts, short numbers and these words occur in any file.
_SHORTEST, _SHORTEST_NUMBER = 4, 7
_COMMON = ("null", "none", "true", "false")
# RE2 refuses larger patterns. A longer text is searched for as it is: it is no part of a longer word.
_TEXTS_OF_PATTERN, _BYTES_OF_PATTERN = 500, 256 << 10


def is_distinctive(key: str) -> bool:
    """Whether a row key can be searched for in any text."""
    shortest = _SHORTEST_NUMBER if key.isdecimal() else _SHORTEST
    return len(key.encode("utf-8", "replace")) >= shortest and key.lower() not in _COMMON


def is_unlike_words(key: str) -> bool:
    """Whether a row key can be replaced in any text, because it is no word of a language."""
    return is_distinctive(key) and not key.isalpha()


@dataclass(frozen=True)
class Needles:
    """The texts to search for.

    Attributes:
        texts: The texts.
        patterns: Regular expressions of RE2, each of which finds some of the texts as whole words. The time to
            search with one does not depend on how many.
        long: The texts that are too long for them.
    """

    texts: tuple[str, ...]
    patterns: tuple[bytes, ...]
    long: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str], custom_ids: Iterable[str], slugs: Collection[str] = ()) -> Needles | None:
        """Return the texts that show row keys or their requests; `None` if there is nothing to search for.

        Args:
            keys: The row keys. Those that are too short to be distinguished from other texts are left out.
            custom_ids: The custom_ids of their requests.
            slugs: The slugs of the keys that rows with other keys have too.
        """
        named = [key for key in keys if is_distinctive(key)]
        forms = [form for key in named for form in _forms(key) if form == key or form not in slugs]
        texts = tuple(dict.fromkeys([*forms, *custom_ids]))
        words = {text: re.escape(_encoded(text)) for text in texts}
        short = [word for word in words.values() if len(word) <= _BYTES_OF_PATTERN]
        long = tuple(_encoded(text) for text, word in words.items() if len(word) > _BYTES_OF_PATTERN)
        return cls(texts, tuple(_patterns(short)), long) if texts else None

    @property
    def longest(self) -> int:
        """The bytes of the longest text, with the character before it and the one after it."""
        return max(map(len, map(_encoded, self.texts))) + 2

    def are_in(self, texts: pa.Array) -> bool:
        """Whether one of some texts or bytes has one of them."""
        column = texts.cast(pa.large_binary())
        return any(pc.any(pc.match_substring_regex(column, pattern)).as_py() for pattern in self.patterns) or any(
            pc.any(pc.match_substring(column, text)).as_py() for text in self.long
        )


def _patterns(escaped: Iterable[bytes]) -> Iterator[bytes]:
    words: list[bytes] = []
    size = 0
    for word in escaped:
        if words and (len(words) == _TEXTS_OF_PATTERN or size + len(word) > _BYTES_OF_PATTERN):
            yield _pattern(words)
            words, size = [], 0
        words.append(word)
        size += len(word)
    if words:
        yield _pattern(words)


def _pattern(words: Sequence[bytes]) -> bytes:
    return rb"(?:\A|[^A-Za-z0-9])(?:%b)(?:[^A-Za-z0-9]|\z)" % b"|".join(words)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def in_json(key: str) -> list[str]:
    """Return a row key as it is within JSON, with other characters than those of ASCII as they are and escaped."""
    escaped = json.dumps(key)[1:-1]
    try:
        return [orjson.dumps(key).decode()[1:-1], escaped]
    except orjson.JSONEncodeError:  # it is not valid Unicode
        return [escaped]


def _forms(key: str) -> list[str]:
    """Return a row key as it is, within JSON, and at the start of a custom_id."""
    short = slug(key)
    return [key, *in_json(key), *([short] if is_distinctive(short.strip("_")) else [])]


def search(root: Root, needles: Needles) -> list[tuple[str, ...]]:
    """Return the paths of the files under the root that have one of the texts, decompressed or as they are."""
    return [parts for parts in root.storage.all_files() if _is_in_file(root, parts, needles)]


def ledger_files(root: Root) -> list[Path]:
    """Return the files that the ledger may have; none if it is on a server."""
    database = parse_url(root.settings.ledger_url).database or ""
    return [Path(database + ending) for ending in ("", "-wal", "-shm")] if root.ledger.is_file else []


def search_ledger(root: Root, needles: Needles) -> list[str]:
    """Return the files of the ledger that have one of the texts; on a server, the columns of its tables."""
    if not root.ledger.is_file:
        with root.ledger.read() as tx:
            return erasure.columns_with(tx, needles.texts)
    files = []
    for path in ledger_files(root):
        if path.exists():
            with path.open("rb") as file:
                if _is_in_bytes(file, needles):
                    files.append(str(path))
    return files


def _is_in_file(root: Root, parts: Sequence[str], needles: Needles) -> bool:
    try:
        with root.storage.open(*parts) as file:
            if _is_in_bytes(file, needles):
                return True
        if not parts[-1].endswith(".parquet"):
            return False
        with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as table:
            return any(_is_in_rows(rows, needles) for rows in table.iter_batches(4096, use_threads=False))
    except FileNotFoundError:  # another process has replaced it by now
        return False
    except UNREADABLE:
        return True  # an unreadable file may have any text


def _is_in_bytes(file: BinaryIO, needles: Needles) -> bool:
    before = b""
    while chunk := file.read(_CHUNK):
        block = before + chunk
        if needles.are_in(pa.array([block], pa.large_binary())):
            return True
        before = block[-needles.longest :]
    return False


def _is_in_rows(rows: pa.RecordBatch, needles: Needles) -> bool:
    return any(needles.are_in(leaf) for column in rows.columns for leaf in leaves(column))


def leaves(array: pa.Array) -> Iterator[Any]:
    """Yield the arrays of texts in a column, also of those within structs, lists and maps."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array
    elif pa.types.is_dictionary(kind):
        yield from leaves(array.dictionary)
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from leaves(part)
    elif pa.types.is_map(kind):
        yield from leaves(array.keys)
        yield from leaves(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from leaves(array.flatten())
