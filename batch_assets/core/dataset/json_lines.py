"""Parse the lines of a JSON Lines file. A line that is no object is an error with its location, or rejected."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import orjson

from batch_assets.core.dataset.bounds import JSON_DEPTH
from batch_assets.core.dataset.rows import invalid_text
from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.io.json_text import without_surrogates
from batch_assets.core.repeated_keys import RepeatedKeyError, check_keys, checked_object

# Whole numbers with fewer digits fit into 64 bits, which is orjson's limit.
_LONG_NUMBER = b"0" * 19
_SHOWN_BYTES = 20
_TOO_DEEP = f"it is nested more than {JSON_DEPTH} levels deep"
_DIGITS_AS_ZEROS = bytes(ord("0" if chr(byte) in "0123456789" else " ") for byte in range(256))
_NESTED = {dict, list}
_INEXACT = {*_NESTED, float}
_ONE_OBJECT = "one object per line is expected"
_LIST = f"a list begins here; {_ONE_OBJECT}, as jq -c '.[]' writes them"
_SPREAD = f"an object begins here that goes on in the next line; {_ONE_OBJECT}, as jq -c . writes them"


@dataclass(frozen=True)
class ParsedLines:
    """The objects of some lines.

    Attributes:
        objects: The objects. An unreadable line is an empty one, a blank line none.
        numbers: The number of the line of each object, from 1.
        broken: The (error type, text) of each rejected object, by its position.
        lines: All lines, blank ones too.
        first: The number of the first of them, from 1.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    numbers: Sequence[int] = ()
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    lines: Sequence[bytes] = ()
    first: int = 1

    @property
    def are_unreadable(self) -> bool:
        """Whether none of the lines can be read."""
        unreadable = [reason for reason, _ in self.broken.values() if reason == ErrorType.UNREADABLE_ROW]
        return len(unreadable) == len(self.objects)

    @cached_property
    def may_have_booleans(self) -> bool:
        """Whether some line has the word true or false."""
        return any(b"true" in line or b"false" in line for line in self.lines)

    def line(self, position: int) -> bytes:
        """Return the line of an object.

        Args:
            position: The position of the object.
        """
        return self.lines[self.numbers[position] - self.first]

    def locations(self, name: str) -> Callable[[int], str]:
        """Return a function that returns where an object is, for texts.

        Args:
            name: The file.
        """
        return lambda position: f"{name}, line {self.numbers[position]}"


class _BadLineError(Exception):
    """A line that cannot be read. Its text says why."""


class JsonLineParser:
    """Parses lines.

    Args:
        name: The file, for errors.
        rejects: Whether a line that cannot be read is rejected. If not, it is an error.
        checks_keys: Whether to look for keys that are twice in an object.

    Attributes:
        has_repeated_keys: Whether a line so far has such a key.
    """

    def __init__(self, name: str, *, rejects: bool, checks_keys: bool) -> None:
        self._name, self._rejects, self._checks_keys = name, rejects, checks_keys
        self._begun = self.has_repeated_keys = False

    def parse(self, lines: Sequence[bytes], number: int) -> ParsedLines:
        """Parse some lines of the file. They must come in order.

        Args:
            lines: The lines.
            number: The number of the first of them, from 1.

        Raises:
            DatasetError: When one cannot be read and is not rejected, or the file has another format.
        """
        objects: list[dict[str, Any]] = []
        broken: dict[int, tuple[str, str]] = {}
        for current, line in enumerate(lines, number):
            line = line.strip()
            if not line:
                continue
            try:
                try:
                    entry = orjson.loads(line)
                    if type(entry) is not dict:
                        self._fail_kind(entry, current)
                    kinds = {*map(type, entry.values())}
                    if not kinds.isdisjoint(_NESTED):
                        _check_depth(line, entry)
                    if not kinds.isdisjoint(_INEXACT):
                        entry = _exact(entry, line)
                    if self._checks_keys and line.count(b":") != len(entry):
                        check_keys(line, entry)
                except orjson.JSONDecodeError:
                    entry, problem = self._parse_leniently(line, current)
                    if problem is not None:
                        broken[len(objects)] = invalid_text(f"{self._location(current)}: {problem}")
            except (_BadLineError, RepeatedKeyError) as error:
                text = f"{self._location(current)}: {error}"
                if not self._rejects:
                    raise DatasetError(text) from None
                self.has_repeated_keys |= isinstance(error, RepeatedKeyError)
                entry, broken[len(objects)] = {}, (ErrorType.UNREADABLE_ROW, text)
            objects.append(entry)
            self._begun = True
        if len(objects) == len(lines):
            return ParsedLines(objects, range(number, number + len(lines)), broken, lines, number)
        numbers = [at for at, line in enumerate(lines, number) if line.strip()]
        return ParsedLines(objects, numbers, broken, lines, number)

    def _location(self, number: int) -> str:
        return f"{self._name}, line {number}"

    def _fail_kind(self, value: Any, number: int) -> NoReturn:
        if isinstance(value, list) and not self._begun and any(isinstance(item, dict) for item in value):
            raise DatasetError(f"{self._location(number)}: {_LIST}") from None
        raise _BadLineError(f"not a JSON object; {_ONE_OBJECT}")

    def _parse_leniently(self, line: bytes, number: int) -> tuple[Any, str | None]:
        """Parse a line that orjson refuses.

        Lone surrogates become U+FFFD, as does invalid UTF-8 if rows are rejected.

        Returns:
            The value, and why U+FFFD had to be put in, if it had to.
        """
        problem = None
        try:
            text = line.decode()
        except UnicodeDecodeError as invalid:
            before = line[max(0, invalid.start - _SHOWN_BYTES) : invalid.start].decode(errors="replace")
            problem = f"not UTF-8: the bytes {line[invalid.start : invalid.end].hex(' ')} after {before!r}"
            if not self._rejects:
                raise _BadLineError(
                    f"{problem}; convert the file to UTF-8, or set dataset.bad_rows: reject"
                ) from None
            text = line.decode(errors="replace")
        try:
            entry = json.loads(
                text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=checked_object
            )
            if not isinstance(entry, dict):
                self._fail_kind(entry, number)
            _check_depth(line, entry)
            valid = without_surrogates(entry)
        except RepeatedKeyError:
            raise
        except RecursionError:
            raise _BadLineError(_TOO_DEEP) from None
        except ValueError as error:
            self._fail(line, number, error)
        if problem is None and valid != entry:
            problem = "the line contains text that is not valid Unicode"
        return valid, problem

    def _fail(self, line: bytes, number: int, error: ValueError) -> NoReturn:
        if not self._begun and line.startswith((b"[", b"{")) and (line.startswith(b"[") or len(line) == 1):
            # Not a line is wrong, but the whole file.
            problem = _LIST if line.startswith(b"[") else _SPREAD
            raise DatasetError(f"{self._location(number)}: {problem}") from None
        raise _BadLineError(_problem(line, error)) from None


def _problem(line: bytes, error: ValueError) -> str:
    """Say why a line is not JSON."""
    if line.startswith(codecs.BOM_UTF8):
        return "a byte order mark before the object, as in files that were put together: remove it"
    if not isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {'a number has too many digits' if 'digits' in str(error) else error}"
    if error.msg == "Extra data" and b"\r" in line:
        return "the lines end with carriage returns alone: convert them, for example with tr '\\r' '\\n'"
    if error.msg == "Extra data":
        return f"more follows the first value; {_ONE_OBJECT}, as jq -c . writes them"
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated"):
        return (
            f"the line ends within the object: it is cut off, or the object has several lines; {_ONE_OBJECT}, as "
            "jq -c . writes them"
        )
    return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def _no_number(name: str) -> NoReturn:
    raise _BadLineError(f"{name} is not JSON: write null where there is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _BadLineError(f"the number {digits} is too large for a double")
    return number


def _check_depth(line: bytes, value: Any) -> None:
    if line.count(b"[") + line.count(b"{") > JSON_DEPTH and depth_of(value) > JSON_DEPTH:
        raise _BadLineError(_TOO_DEEP)


def depth_of(value: Any) -> int:
    """Return the number of levels of lists and objects in a JSON value."""
    depth, level = 0, [value]
    while level := [entry for entry in level if isinstance(entry, dict | list)]:
        depth += 1
        level = [inner for entry in level for inner in (entry.values() if isinstance(entry, dict) else entry)]
    return depth


def _exact(entry: Any, line: bytes) -> Any:
    """A parsed line with every digit of whole numbers beyond 64 bits, which orjson turns into floats.

    Args:
        entry: The line as orjson parsed it, with a float, a list or an object in it.
        line: The line.
    """
    return json.loads(line) if _LONG_NUMBER in line.translate(_DIGITS_AS_ZEROS) else entry
