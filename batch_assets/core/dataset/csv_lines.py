"""The lines at which the rows of a CSV file begin, for texts about rows that Arrow has taken apart already."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO

from batch_assets.core.dataset.csv_checks import GuardOptions
from batch_assets.core.dataset.csv_dialect import Dialect
from batch_assets.core.dataset.csv_guard import CsvGuard


class CsvLines(CsvGuard):
    """Reads a CSV file once more, as far as needed.

    Args:
        file: See `CsvGuard`.
        dialect: See `CsvGuard`.
        options: Those of the first reading, but with `is_exact`.
    """

    def __init__(self, file: BinaryIO, dialect: Dialect, options: GuardOptions) -> None:
        # The lines of the rows that were read last, and the number of the first of them.
        self._starts: list[int] = []
        self._first = self._needed = 0
        super().__init__(file, dialect, options)

    def forget(self, row: int) -> None:
        """Allow that only a row, from 0, and those after it can be asked for."""
        self._needed = row

    def line(self, row: int) -> int:
        """Return the line at which a row begins, from 1.

        Args:
            row: The number of the row, from 0.
        """
        while row >= self._first + len(self._starts):
            if self._ended and not self._buffer:
                return self._lines.at(0)
            self._next()
            self.rejected.clear()  # the first reading has them
            passed = min(len(self._starts), max(0, self._needed - self._first))
            del self._starts[:passed]
            self._first += passed
        return self._starts[row - self._first]

    def _checked(self, start: int, end: int) -> list[bytes]:
        content = bytes(memoryview(self._buffer)[start:end])
        self._starts += [self._lines.at(start + match.start(1)) for match in self._record.finditer(content)]
        return super()._checked(start, end)

    def _check_one(self, start: int, pieces: list[bytes]) -> int:
        line = self._lines.at(start)
        end = super()._check_one(start, pieces)
        self._starts.append(line)
        return end


class LineFinder:
    """Finds the lines of rows. The file is opened only if there is a row to find. A context manager.

    Args:
        name: The file, for texts.
        open_lines: Opens the file.
    """

    def __init__(self, name: str, open_lines: Callable[[], CsvLines]) -> None:
        self._name, self._open = name, open_lines
        self._lines: CsvLines | None = None

    def locations(self, first: int) -> Callable[[int], str]:
        """Return a function that returns the location of a row, for texts.

        Args:
            first: The number of the row at position 0, from 0.
        """

        def location(position: int) -> str:
            if self._lines is None:
                self._lines = self._open()
            self._lines.forget(first)
            return f"{self._name}, line {self._lines.line(first + position)}"

        return location

    def __enter__(self) -> LineFinder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()
