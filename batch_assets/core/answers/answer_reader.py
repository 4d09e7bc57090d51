"""Many answers -> Arrow at once, by Arrow's own JSON reader, wherever no doubt is left that they match.

What this module reads it reads as `answer_parser` does, several times faster. Arrow's reader checks the types and
stops at properties that the schema does not name or that come twice; what it does not check is checked here on
whole columns. Any doubt gives None, and the answers are then parsed one by one.
"""

from __future__ import annotations

from collections import Counter

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from batch_assets.core.answers.limits import are_seen_at_once, surely_kept
from batch_assets.core.answers.output_shapes import Shape

# A line end in a text is white space like a tab, and within a string neither may stand.
_INNER_LINE_ENDS = bytes.maketrans(b"\r\n\0", b"\t\t\n")
_MAX_BYTES = 1 << 30
# Arrow reads so many parts of a piece at the same time.
_BLOCKS = 4
# What both ways read alike; rarer forms are the parser's. https://www.rfc-editor.org/rfc/rfc3339#section-5.6
_DATE = "^[12][0-9]{3}-[0-9]{2}-[0-9]{2}$"
_DATE_TIME = (
    "^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)


class _DoubtError(Exception):
    pass


class AnswerReader:
    """Reads answers of one shape, an object all of whose properties have an Arrow type."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._options = pj.ParseOptions(
            explicit_schema=pa.schema(list(shape.raw)), unexpected_field_behavior="error"
        )

    @classmethod
    def of(cls, shape: Shape) -> AnswerReader | None:
        """None for shapes that only the parser can read."""
        if any(part.raw is None for part in shape.fields.values()):
            return None
        if any(b"\\" in orjson.dumps(name) for name in _names(shape)):
            return None  # the count of keys takes them as they stand in the text
        if not _are_seen_at_once(shape):
            return None
        return cls(shape)

    def read(self, texts: pa.StringArray) -> pa.StructArray | None:
        """The raw values of answers; None when one of them may not match, or may have to be read otherwise.

        Args:
            texts: answers, each of which begins with { and ends with }.
        """
        if texts.nbytes > _MAX_BYTES:
            return None
        data = _joined(texts, "\n")
        if b"\0" in data:
            return None
        if data.count(b"\n") >= len(texts) or b"\r" in data:
            data = _joined(texts, "\0").translate(_INNER_LINE_ENDS)
        longest = pc.max(pc.binary_length(texts)).as_py()
        blocks = pj.ReadOptions(block_size=max(len(data) // _BLOCKS, longest) + 2)
        try:
            table = pj.read_json(pa.BufferReader(data), read_options=blocks, parse_options=self._options)
            # Between two texts stands } and a line end and {. JSON allows no line end within a string, and here
            # only where one value ends and the next begins. So each text holds whole objects, at least one; as
            # many objects as texts are then one for each.
            if len(table) != len(texts):
                return None
            columns = [column.combine_chunks() for column in table.columns]
            answers = pa.StructArray.from_arrays(columns, fields=list(self._shape.raw))
            _Check(data).answers(answers, self._shape)
        except (pa.ArrowException, _DoubtError):
            return None
        return answers


class _Check:
    """Whether what Arrow has read matches, column by column."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._required: Counter[str] = Counter()
        self._optional: set[str] = set()
        self._null: set[str] = set()

    def answers(self, array: pa.StructArray, shape: Shape) -> None:
        """Raises _DoubtError unless all of them match for certain."""
        self._object(array, shape)
        for name in self._null:
            # Arrow does not tell a null from a property that is absent. A key's text occurs as often as the key:
            # within a string the quote at its end would have a backslash before it.
            key = orjson.dumps(name) + b":"
            if name in self._optional or self._data.count(key) != self._required[name]:
                raise _DoubtError

    def _object(self, array: pa.StructArray, shape: Shape) -> None:
        array = array.drop_null()
        for position, (name, part) in enumerate(shape.fields.items()):
            values = array.field(position)
            if name not in shape.required:
                self._optional.add(name)
            else:
                self._required[name] += len(values)
                if values.null_count and part.kind != "null":
                    self._nullable(part)
                if values.null_count:
                    self._null.add(name)
            self._values(values, part)

    def _nullable(self, part: Shape) -> None:
        if not part.nullable:
            raise _DoubtError

    def _values(self, values: pa.Array, shape: Shape) -> None:
        """Args: values: of the shape, nulls allowed."""
        if shape.limits:
            _be_sure(surely_kept(shape.limits, values))
        if shape.kind == "object":
            self._object(values, shape)
        elif shape.kind == "array" and shape.items is not None:
            items = values.flatten()
            if items.null_count:
                self._nullable(shape.items)
            self._values(items, shape.items)
        elif shape.kind == "enum":
            found = pc.index_in(values, pa.array(shape.values, shape.raw))
            _be_sure(found.null_count == values.null_count)
        elif shape.kind == "number":
            _be_sure(pc.all(pc.is_finite(values)).as_py() is not False)  # Arrow takes NaN
        elif shape.kind in ("date", "date-time"):
            form = _DATE if shape.kind == "date" else _DATE_TIME
            _be_sure(pc.all(pc.match_substring_regex(values, form)).as_py() is not False)
            values.cast(shape.type)


def _joined(texts: pa.StringArray, separator: str) -> bytes:
    together = pa.ListArray.from_arrays([0, len(texts)], texts)
    joined: bytes = pc.binary_join(together, separator)[0].as_buffer().to_pybytes()
    return joined


def _be_sure(certain: bool) -> None:
    if not certain:
        raise _DoubtError


def _are_seen_at_once(shape: Shape) -> bool:
    inner = [*shape.fields.values(), *([shape.items] if shape.items else ())]
    return are_seen_at_once(shape.limits) and all(map(_are_seen_at_once, inner))


def _names(shape: Shape) -> set[str]:
    inner = [*shape.fields.values(), *([shape.items] if shape.items else ())]
    return {*shape.fields}.union(*map(_names, inner))
