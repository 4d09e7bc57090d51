"""The output schema: one Arrow column for every top-level property, and the parsing of answers into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answer_parser import MismatchError, parse
from batch_assets.core.answers.answer_reader import AnswerReader
from batch_assets.core.answers.output_shapes import shape_of, typed, with_limits
from batch_assets.core.answers.schema_checks import SchemaChecks
from batch_assets.core.answers.schema_parts import as_json

# Answers are read at once in pieces of the first size. A piece with an answer that may not match is read again in
# pieces of the next size. Answers in a failed piece of the last size are parsed one by one.
_PIECES = (4096, 512, 64)

_Positions = NDArray[np.int64]


class Classes(NamedTuple):
    """The values of a column that has only some.

    Attributes:
        values: The values, in the schema's order.
        is_list: Whether each row has a list of them.
    """

    values: list[Any]
    is_list: bool = False


class OutputSchema:
    """Typed columns for answers: one for every top-level property, with the property's own type.

    Args:
        schema: See the attribute.
        bounded: See the attribute.
        validators: The names of a pydantic model's own validators.

    Attributes:
        schema: The JSON Schema that is sent to the API.
        bounded: The same schema with limits that the API does not accept but that answers are checked against;
            `None` if there are none.
        names: The names of the properties, in the schema's order.
        descriptions: The descriptions of properties, by name, where the schema has one.
        types: The Arrow types of the columns, by name. A property without a matching Arrow type (mixed types,
            recursion) becomes text that holds JSON.
        unchecked: What answers are not checked against, as texts.

    Raises:
        ValueError: When the schema does not describe an object with properties.
    """

    def __init__(
        self, schema: dict[str, Any], bounded: dict[str, Any] | None = None, validators: Sequence[str] = ()
    ) -> None:
        schema = as_json(schema)
        self.schema, self.bounded = schema, bounded
        self._shape = shape_of(schema, schema)
        if bounded is not None:
            self._shape = with_limits(self._shape, shape_of(bounded, bounded))
        if self._shape.kind != "object" or not self._shape.fields:
            raise ValueError('the schema must have "type": "object" and "properties", one for each column')
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
        self._checks = SchemaChecks(self._shape, schema, bounded)
        self.unchecked = [*self._checks.unchecked, *_not_run(validators)]

    @property
    def classes(self) -> dict[str, Classes]:
        """The columns of enums, of booleans and of lists of them, by name, in the schema's order."""
        found: dict[str, Classes] = {}
        for name, part in self._shape.fields.items():
            is_list = part.kind == "array"
            item = part.items if is_list else part
            if part.type is None or item is None or item.kind not in ("enum", "boolean"):
                continue
            values = list(item.values) if item.kind == "enum" else [True, False]
            if is_list or len(values) > 1:
                found[name] = Classes(values, is_list)
        return found

    def columns(self, texts: pa.StringArray) -> tuple[list[pa.Array], list[str | None]]:
        """Parse answers into one array per property.

        Args:
            texts: The answers, string, shape (n,); null for rows without an answer.

        Returns:
            The arrays in the order of `names`, each of shape (n,), and a list with the reason for each answer that
            does not match the schema and `None` for the others. An answer that does not match is null in every
            array.
        """
        problems: list[str | None] = [None] * len(texts)
        positions, arrays, unread = self._read(texts)
        positions.append(unread)
        arrays.append(self._parse(texts, unread, problems))
        raw = pa.concat_arrays(arrays)
        if len(arrays[0]) < len(texts):
            raw = raw.take(pa.array(np.argsort(np.concatenate(positions))))
        if self._checks:
            raw = self._checked(texts, raw, problems)
        columns = raw.flatten()
        return [
            typed(column, part) if part.type else column
            for column, part in zip(columns, self._shape.fields.values(), strict=True)
        ], problems

    def _read(self, texts: pa.StringArray) -> tuple[list[_Positions], list[pa.Array], _Positions]:
        """Read answers in pieces.

        Returns:
            The positions (int64) and the values of each piece that could be read, and the positions of all other
            answers, sorted.
        """
        positions: list[_Positions] = []
        arrays: list[pa.Array] = []
        if self._reader is None:
            return positions, arrays, np.arange(len(texts))
        # The reader requires braces at both ends. The filter also keeps truncated answers out of the pieces, where
        # they would make the others of their piece fail.
        texts = pc.ascii_trim(texts, " \t\r\n")
        complete = pc.and_(pc.starts_with(texts, "{"), pc.ends_with(texts, "}"))
        mask = pc.fill_null(complete, False).to_numpy(False)
        candidates, incomplete = np.flatnonzero(mask), np.flatnonzero(~mask)
        for size in _PIECES:
            failed: list[_Positions] = []
            for start in range(0, len(candidates), size):
                piece = candidates[start : start + size]
                array = self._reader.read(texts if len(piece) == len(texts) else texts.take(pa.array(piece)))
                if array is None:
                    failed.append(piece)
                else:
                    positions.append(piece)
                    arrays.append(array)
            candidates = np.concatenate(failed) if failed else candidates[:0]
        return positions, arrays, np.sort(np.concatenate([candidates, incomplete]))

    def _checked(self, texts: pa.StringArray, raw: pa.StructArray, problems: list[str | None]) -> pa.StructArray:
        """Make answers null that fail the checks beyond shapes, and write the reasons into `problems`."""
        failed = [number for number, problem in enumerate(problems) if problem is not None]
        for number, text in enumerate(texts.to_pylist()):
            if text is not None and problems[number] is None:
                problems[number] = self._checks.problem(text)
        invalid = np.array([problem is not None for problem in problems])
        if invalid.sum() == len(failed):
            return raw
        return raw.take(pa.array(np.arange(len(raw)), mask=invalid))

    def _parse(self, texts: pa.StringArray, positions: _Positions, problems: list[str | None]) -> pa.Array:
        """Parse the answers at some positions one by one, and write into `problems` why answers do not match."""
        values: list[dict[str, Any] | None] = []
        for number in positions.tolist():
            text, value = texts[number].as_py(), None
            if text is not None:
                try:
                    value = parse(text, self._shape)
                except MismatchError as error:
                    problems[number] = str(error)
            values.append(value)
        return pa.array(values, self._struct)


def _not_run(validators: Sequence[str]) -> list[str]:
    return [f"the model's own validators ({', '.join(validators)})"] if validators else []
