"""Render many rows at once, if every string of the params is only text and columns. The bytes are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from types import NoneType
from typing import Any

import orjson

from batch_assets.core.template.parts import Part, PlainText, WholeColumn

# What separates texts, and its form in JSON. It has a backslash only at its start, so no two of them overlap, and
# every separator is found. If a text contains one too, there are more pieces than texts.
_BETWEEN, _BETWEEN_IN_JSON = "\x1f", b"\\u001f"
# Texts are escaped in groups: all at once would need three more copies of them in memory.
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class FlatTemplate:
    """Params as constant bytes with columns between them.

    Attributes:
        constants: The bytes before each column, and after the last one.
        columns: The columns, in order. One may occur several times.
        wanted: For each text that must not be blank, its columns.
        whole: The columns that are a whole value somewhere, whether null is rejected there.
        text: Returns the text of a value, see `PlainText`.
    """

    constants: list[bytes]
    columns: list[str]
    wanted: list[list[str]]
    whole: dict[str, bool]
    text: Callable[[Any], str]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> FlatTemplate | None:
        """Make a flat template of compiled params; `None` if they are not flat."""
        constants, columns, wanted = [b""], [], []
        whole: dict[str, bool] = {}
        text_of: Callable[[Any], str] = str
        for part in parts:
            if isinstance(part, bytes):
                constants[-1] += part
                continue
            if not isinstance(part, PlainText | WholeColumn):
                return None
            if isinstance(part, WholeColumn):
                (name,) = [text for _, text in part.pieces]
                whole[name] = part.may_not_be_blank and whole.get(name, True)
            else:
                text_of = part.text
            constants[-1] += b'"'
            for is_column, text in part.pieces:
                if is_column:
                    columns.append(text)
                    constants.append(b"")
                    continue
                try:
                    constants[-1] += orjson.dumps(text)[1:-1]
                except TypeError:  # not valid Unicode, which rejects every row
                    return None
            constants[-1] += b'"'
            if part.may_not_be_blank:
                wanted.append([text for is_column, text in part.pieces if is_column])
        return cls(constants, columns, wanted, whole, text_of) if columns else None

    def escaped(self, values: Mapping[str, Sequence[Any]]) -> EscapedColumns | None:
        """Prepare rows for rendering.

        Args:
            values: The values of the columns, of n rows.

        Returns:
            `None` if the rows can only be rendered one by one: a text is not valid Unicode or contains a certain
            control character, or a whole value is no text.
        """
        for name, is_text_wanted in self.whole.items():
            if set(map(type, values[name])) - ({str, NoneType} if is_text_wanted else {str}):
                return None
        odd: set[int] = set()
        texts = {name: self._texts(values[name], odd) for name in dict.fromkeys(self.columns)}
        as_json: dict[str, list[bytes]] = {}
        for name, column in texts.items():
            try:
                escaped = _escaped(column)
            except TypeError:
                return None
            if escaped is None:
                return None
            as_json[name] = escaped
        odd.update(at for name in texts for at, value in enumerate(values[name]) if type(value) is bytes)
        for names in self.wanted:
            rows = zip(*(texts[name] for name in names), strict=True)
            odd.update(at for at, row in enumerate(rows) if not any(text and not text.isspace() for text in row))
        return EscapedColumns(self.constants, [as_json[name] for name in self.columns], odd)

    def _texts(self, values: Sequence[Any], odd: set[int]) -> list[str]:
        """Return values as templates print them. Adds the positions of those that have no text to `odd`."""
        text_of = self.text
        try:
            return [
                value
                if type(value) is str
                else ""
                if value is None
                else str(value)
                if type(value) is int
                else text_of(value)
                for value in values
            ]
        except Exception:  # rendering the row alone says why
            without = [at for at, value in enumerate(values) if not self._has_text(value)]
        odd.update(without)
        kept = list(values)
        for at in without:
            kept[at] = None
        return self._texts(kept, odd)

    def _has_text(self, value: Any) -> bool:
        try:
            self.text(value)
        except Exception:
            return False
        return True


@dataclass(frozen=True)
class EscapedColumns:
    """Rows that are ready for rendering.

    Attributes:
        constants: See `FlatTemplate`.
        columns: For each column its values as JSON, without quotes.
        odd: The positions of the rows that have to be rendered one by one, which probably rejects them.
    """

    constants: list[bytes]
    columns: list[list[bytes]]
    odd: set[int]

    def sizes(self) -> list[int]:
        """Return the number of bytes of each row's params."""
        constant = sum(map(len, self.constants))
        return [constant + sum(map(len, row)) for row in zip(*self.columns, strict=True)]

    def params(self, start: int, end: int) -> list[bytes]:
        """Return the params of the rows from `start` to before `end`."""
        pieces: list[Any] = [repeat(self.constants[0])]
        for column, constant in zip(self.columns, self.constants[1:], strict=True):
            pieces += [column[start:end], repeat(constant)]
        return list(map(b"".join, zip(*pieces)))  # noqa: B905  the constants have no end


def _escaped(texts: list[str]) -> list[bytes] | None:
    """Return texts as JSON, without quotes; `None` if a text contains the separator.

    Raises:
        TypeError: When one is not valid Unicode.
    """
    pieces: list[bytes] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        pieces += orjson.dumps(_BETWEEN.join(texts[start : start + _TEXTS_AT_ONCE]))[1:-1].split(_BETWEEN_IN_JSON)
    return pieces if len(pieces) == len(texts) else None
