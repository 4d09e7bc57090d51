"""Messages -> typed columns by a pipeline's own `parse_message`, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.answers.output_schema import OutputSchema
from batch_assets.core.io.json_text import load_exactly

ParseMessage = Callable[[dict[str, Any]], Mapping[str, Any]]
"""(a message as the API sent it) -> values of the typed columns by name."""
_Values = list[dict[str, Any] | None]
_Problems = list[str | None]


class ArrowColumns:
    """Typed columns as a pyarrow schema declares them.

    Attributes:
        names: in the schema's order.
        types: by name.
        descriptions: of those whose field has `description` in its metadata.

    Errors:
        ValueError: no columns, two of one name, or a type that Parquet does not have.
    """

    def __init__(self, schema: pa.Schema) -> None:
        if not isinstance(schema, pa.Schema) or not schema.names:
            raise ValueError("give a pyarrow schema with at least one column")
        if len(set(schema.names)) < len(schema.names):
            raise ValueError("give every column a name of its own")
        _try_in_parquet(schema)
        self._schema = schema
        self.names: list[str] = schema.names
        self.types: dict[str, pa.DataType] = {field.name: field.type for field in schema}
        self.descriptions = {
            field.name: field.metadata[b"description"].decode()
            for field in schema
            if field.metadata and b"description" in field.metadata
        }

    def columns(self, values: _Values) -> tuple[list[pa.Array], _Problems]:
        """One array a column, and for each row None or why its values do not fit: then it is null in every column.

        Args:
            values: by name; None where there are none.
        """
        problems: _Problems = [self._names_problem(row) if row is not None else None for row in values]
        rows = [row if row is not None and problems[at] is None else {} for at, row in enumerate(values)]
        try:
            return self._arrays(rows), problems
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            pass
        for at, row in enumerate(rows):
            for field in self._schema if row else ():
                try:
                    pa.array([row.get(field.name)], field.type)
                except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                    problems[at], rows[at] = f"{field.name!r} is not {field.type}: {error}", {}
                    break
        return self._arrays(rows), problems

    def _arrays(self, rows: list[dict[str, Any]]) -> list[pa.Array]:
        return [pa.array([row.get(field.name) for row in rows], field.type) for field in self._schema]

    def _names_problem(self, row: dict[str, Any]) -> str | None:
        unknown = next((name for name in row if name not in self.types), None)
        if unknown is not None:
            return f"it gave {unknown!r}, which is none of the columns {', '.join(self.names)}"
        missing = next((f.name for f in self._schema if not f.nullable and row.get(f.name) is None), None)
        return f"it gave no {missing!r}, which may not be null" if missing is not None else None


def parsed_columns(
    messages: list[str | None], parse: ParseMessage, output: OutputSchema | ArrowColumns
) -> tuple[list[pa.Array], _Problems]:
    """Parses messages into one array a column.

    Args:
        messages: the raw message of each row, None where there is no answer.

    Returns:
        The arrays, and for each message None or why it has no columns.
    """
    values: _Values = []
    problems: _Problems = []
    for message in messages:
        value, problem = _parse(message, parse) if message is not None else (None, None)
        values.append(value)
        problems.append(problem)
    if isinstance(output, ArrowColumns):
        arrays, unfit = output.columns(values)
    else:
        texts: list[str | None] = []
        for at, value in enumerate(values):
            text = None
            if value is not None:
                try:
                    text = orjson.dumps(value, default=_plain).decode()
                except TypeError as error:
                    problems[at] = str(error.__cause__ or error)
            texts.append(text)
        arrays, unfit = output.columns(pa.array(texts, pa.string()))
    said = [one or other for one, other in zip(problems, unfit, strict=True)]
    return arrays, [f"parse_message: {problem}" if problem is not None else None for problem in said]


def in_words(error: Exception) -> str:
    """What an exception of a pipeline's own code says to the reader of a table."""
    said = str(error)
    if type(error) is ValueError and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _parse(message: str, parse: ParseMessage) -> tuple[dict[str, Any] | None, str | None]:
    try:
        value: Any = parse(load_exactly(message.encode()))
        if isinstance(value, Mapping):
            return dict(value), None
    except Exception as error:  # whatever a pipeline's own code raises
        return None, in_words(error)
    return None, f"it returned {'None' if value is None else f'a {type(value).__name__}'}: return a dict"


def _plain(value: Any) -> int | float:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form: declare the columns by output_columns")


def _try_in_parquet(schema: pa.Schema) -> None:
    import pyarrow.parquet as pq

    try:
        pq.write_table(schema.empty_table(), pa.BufferOutputStream())
    except pa.ArrowException as error:
        raise ValueError(f"results are Parquet, which cannot hold these columns: {error}") from None
