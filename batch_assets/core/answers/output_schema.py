"""The schema of the answers: one Arrow column for every property, and answers -> typed values."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answer_parser import MismatchError, parse
from batch_assets.core.answers.answer_reader import AnswerReader
from batch_assets.core.answers.output_shapes import shape_of, typed, with_limits

# Answers are read at once in pieces of so many; a piece with one that does not match, in smaller ones. What is
# left of the smallest is parsed one by one.
_PIECES = (4096, 512, 64)

_Places = NDArray[np.int64]


class OutputSchema:
    """One column for every top-level property of the answer, with the property's own type.

    Args:
        schema, bounded: see the attributes.

    Attributes:
        schema: the JSON Schema, as it is sent.
        bounded: the same schema with the limits that the API does not take, and that answers are held to; None
            where there are none.
        names: the properties, in the schema's order.
        descriptions: of those that have one.
        types: their Arrow types, by name. What has no Arrow type of its own (mixed types, recursion)
            becomes text holding JSON.

    Errors:
        ValueError: the schema does not describe an object with properties.
    """

    def __init__(self, schema: dict[str, Any], bounded: dict[str, Any] | None = None) -> None:
        self.schema, self.bounded = schema, bounded
        try:
            orjson.dumps(schema)
        except TypeError as error:
            raise ValueError(f"the schema has no JSON form: {error}; names and texts go in quotes") from None
        self._shape = shape_of(schema, schema)
        if bounded is not None:
            self._shape = with_limits(self._shape, shape_of(bounded, bounded))
        if self._shape.kind != "object" or not self._shape.fields:
            raise ValueError('the schema must be of "type": "object" with "properties", one a column')
        self.names = list(self._shape.fields)
        self.types: dict[str, pa.DataType] = {
            name: part.type or pa.string() for name, part in self._shape.fields.items()
        }
        parts = schema.get("properties", {})
        self.descriptions = {
            name: str(part["description"])
            for name, part in parts.items()
            if isinstance(part, dict) and "description" in part
        }
        self._struct = pa.struct(
            [pa.field(name, part.raw or pa.string()) for name, part in self._shape.fields.items()]
        )
        self._reader = AnswerReader.of(self._shape)

    def columns(self, texts: pa.StringArray) -> tuple[list[pa.Array], list[str | None]]:
        """Parses answers into one array a property.

        Args:
            texts: answers, null where there is none.

        Returns:
            The arrays in the order of `names`, and for each answer None or why it does not match the
            schema; a row that does not match is null in every column.
        """
        problems: list[str | None] = [None] * len(texts)
        places, arrays, rest = self._read(texts)
        places.append(rest)
        arrays.append(self._parse(texts, rest, problems))
        raw = pa.concat_arrays(arrays)
        if len(arrays[0]) < len(texts):
            raw = raw.take(pa.array(np.argsort(np.concatenate(places))))
        columns = raw.flatten()
        return [
            typed(column, part) if part.type else column
            for column, part in zip(columns, self._shape.fields.values(), strict=True)
        ], problems

    def _read(self, texts: pa.StringArray) -> tuple[list[_Places], list[pa.Array], _Places]:
        """What can be read at once: positions, and the values that stand there; and the other positions."""
        places: list[_Places] = []
        arrays: list[pa.Array] = []
        if self._reader is None:
            return places, arrays, np.arange(len(texts))
        # What the reader requires; it also keeps answers that were cut off from spoiling their neighbours' piece.
        texts = pc.ascii_trim(texts, " \t\r\n")
        whole = pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))
        mask = pc.fill_null(whole, False).to_numpy(False)
        left, rest = np.flatnonzero(mask), np.flatnonzero(~mask)
        for size in _PIECES:
            doubtful: list[_Places] = []
            for start in range(0, len(left), size):
                piece = left[start : start + size]
                array = self._reader.read(texts if len(piece) == len(texts) else texts.take(pa.array(piece)))
                if array is None:
                    doubtful.append(piece)
                else:
                    places.append(piece)
                    arrays.append(array)
            left = np.concatenate(doubtful) if doubtful else left[:0]
        return places, arrays, np.sort(np.concatenate([left, rest]))

    def _parse(self, texts: pa.StringArray, places: _Places, problems: list[str | None]) -> pa.Array:
        values: list[dict[str, Any] | None] = []
        for number in places.tolist():
            text, value = texts[number].as_py(), None
            if text is not None:
                try:
                    value = parse(text, self._shape)
                except MismatchError as error:
                    problems[number] = str(error)
            values.append(value)
        return pa.array(values, self._struct)
