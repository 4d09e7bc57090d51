"""Turn messages into typed columns with a pipeline's own `parse_message`, one message at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.answers.output_schema import Classes, OutputSchema
from batch_assets.core.io.json_text import load_exactly
from batch_assets.core.io.parquet import unstorable

ParseMessage = Callable[[dict[str, Any]], Mapping[str, Any]]
"""A function from a message, as the API sent it, to the values of the typed columns by name."""
_Values = list[dict[str, Any] | None]
_Problems = list[str | None]


class ArrowColumns:
    """Typed columns declared by a pyarrow schema.

    Args:
        schema: The schema.

    Attributes:
        names: The names of the columns, in the schema's order.
        types: Their Arrow types, by name.
        descriptions: The descriptions, by name, of columns whose field has `description` in its metadata.

    Raises:
        ValueError: When the schema has no columns, two columns of one name, or a type that Parquet does not have.
    """

    def __init__(self, schema: pa.Schema) -> None:
        if not isinstance(schema, pa.Schema) or not schema.names:
            raise ValueError("give a pyarrow schema with at least one column")
        if len(set(schema.names)) < len(schema.names):
            raise ValueError("two columns have the same name: give every column its own")
        _try_in_parquet(schema)
        self._schema = schema
        self.names: list[str] = schema.names
        self.types: dict[str, pa.DataType] = {field.name: field.type for field in schema}
        self.descriptions = {
            field.name: field.metadata[b"description"].decode()
            for field in schema
            if field.metadata and b"description" in field.metadata
        }

    @property
    def classes(self) -> dict[str, Classes]:
        """The columns of booleans, and of lists of them. Which values other columns can have is not declared."""
        booleans = {pa.bool_(): Classes([True, False]), pa.list_(pa.bool_()): Classes([True, False], is_list=True)}
        return {name: booleans[type_] for name, type_ in self.types.items() if type_ in booleans}

    def columns(self, values: _Values) -> tuple[list[pa.Array], _Problems]:
        """Convert values to one array per column.

        Args:
            values: For each row its values by name, or `None` if it has none.

        Returns:
            The arrays in the order of `names`, each of shape (n,), and a list with the reason for each row whose
            values do not fit and `None` for the others. A row that does not fit is null in every array.
        """
        problems: _Problems = [self._names_problem(row) if row is not None else None for row in values]
        rows = [
            row if row is not None and problem is None else {}
            for row, problem in zip(values, problems, strict=True)
        ]
        try:
            return self._arrays(rows), problems
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            pass
        for number, row in enumerate(rows):
            for field in self._schema if row else ():
                try:
                    pa.array([row.get(field.name)], field.type)
                except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                    problems[number], rows[number] = f"{field.name!r} is not {field.type}: {error}", {}
                    break
        return self._arrays(rows), problems

    def _arrays(self, rows: list[dict[str, Any]]) -> list[pa.Array]:
        return [pa.array([row.get(field.name) for row in rows], field.type) for field in self._schema]

    def _names_problem(self, row: dict[str, Any]) -> str | None:
        unknown = next((name for name in row if name not in self.types), None)
        if unknown is not None:
            return f"it returned {unknown!r}, which is not one of the columns {', '.join(self.names)}"
        missing = next((f.name for f in self._schema if not f.nullable and row.get(f.name) is None), None)
        return f"it returned no {missing!r}, which may not be null" if missing is not None else None


def parsed_columns(
    messages: list[str | None], parse: ParseMessage, output: OutputSchema | ArrowColumns
) -> tuple[list[pa.Array], _Problems]:
    """Parse messages into one array per column.

    Args:
        messages: The raw message of each row; `None` for rows without an answer.
        parse: The pipeline's own function.
        output: The typed columns.

    Returns:
        The arrays, each of shape (n,), and a list with the reason for each message that could not be parsed and
        `None` for the others.
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
        for number, value in enumerate(values):
            text = None
            if value is not None:
                try:
                    text = orjson.dumps(value, default=_plain).decode()
                except TypeError as error:
                    problems[number] = str(error.__cause__ or error)
            texts.append(text)
        arrays, unfit = output.columns(pa.array(texts, pa.string()))
    reasons = [problem or misfit for problem, misfit in zip(problems, unfit, strict=True)]
    return arrays, [f"parse_message: {reason}" if reason is not None else None for reason in reasons]


def as_text(error: Exception) -> str:
    """Describe an exception of a pipeline's own code for the reader of the table.

    The text of a ValueError is used as it is. Other exceptions are named.
    """
    text = str(error)
    if type(error) is ValueError and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _parse(message: str, parse: ParseMessage) -> tuple[dict[str, Any] | None, str | None]:
    try:
        value: Any = parse(load_exactly(message.encode()))
        if isinstance(value, Mapping):
            return dict(value), None
    except Exception as error:  # whatever a pipeline's own code raises
        return None, as_text(error)
    return None, f"it returned {'None' if value is None else f'a {type(value).__name__}'}: return a dict"


def _plain(value: Any) -> int | float:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: declare the columns with output_columns")


def _try_in_parquet(schema: pa.Schema) -> None:
    for field in schema:
        if (problem := unstorable(field.type)) is not None:
            raise ValueError(f"results are Parquet, which cannot hold the column {field.name!r}: {problem}")
