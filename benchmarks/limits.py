"""The speed and memory that the project promises, and whether a run kept to it."""

from __future__ import annotations

import statistics

ROWS = 100_000
"""The number of rows for which the limits hold."""

TYPED_AT_LEAST = 3.0
BARE_AT_MOST = 1.6
WHOLE_AT_MOST = {"bare_loop": 1.5}
"""CPU time of `batch-assets run` as a process, imports included, by what it is compared with."""
COLUMNS_AT_LEAST = 5.0
PEAK_MB_AT_MOST = 350.0
GROWTH_AT_MOST = 1.15


class Verdicts:
    """Prints each measured figure next to its limit.

    Args:
        judging: Whether the limits apply to this run.

    Attributes:
        missed: How many limits were missed.
    """

    def __init__(self, *, judging: bool) -> None:
        self._judging = judging
        self.missed = 0

    def faster_than_typed(self, ratios: list[float]) -> None:
        ratio = statistics.median(ratios)
        measured = f"{ratio:.2f} times faster than typed_sdk ({min(ratios):.2f}-{max(ratios):.2f})"
        self._print(measured, f"at least {TYPED_AT_LEAST:g}", ratio >= TYPED_AT_LEAST)

    def slower_than_bare(self, ratios: list[float]) -> None:
        ratio = statistics.median(ratios)
        measured = f"{ratio:.2f} times the time of bare_loop ({min(ratios):.2f}-{max(ratios):.2f})"
        self._print(measured, f"at most {BARE_AT_MOST:g}", ratio <= BARE_AT_MOST)

    def whole_process(self, under: str, ratios: list[float]) -> None:
        ratio = statistics.median(ratios)
        measured = f"{ratio:.2f} times the whole CPU time of {under} ({min(ratios):.2f}-{max(ratios):.2f})"
        if (limit := WHOLE_AT_MOST.get(under)) is None:
            print(measured)
        else:
            self._print(measured, f"at most {limit:g}", ratio <= limit)

    def faster_columns(self, name: str, ratios: list[float]) -> None:
        ratio = statistics.median(ratios)
        measured = f"{name}: {ratio:.2f} times faster than the reference ({min(ratios):.2f}-{max(ratios):.2f})"
        self._print(measured, f"at least {COLUMNS_AT_LEAST:g}", ratio >= COLUMNS_AT_LEAST)

    def peak(self, megabytes: float) -> None:
        limit = f"at most {PEAK_MB_AT_MOST:.0f}"
        self._print(f"peak memory {megabytes:.0f} MB", limit, megabytes <= PEAK_MB_AT_MOST)

    def growth(self, ratio: float) -> None:
        measured = f"{ratio:.2f} times the peak memory at {ROWS:,} rows"
        self._print(measured, f"at most {GROWTH_AT_MOST:g}", ratio <= GROWTH_AT_MOST)

    def _print(self, measured: str, limit: str, is_met: bool) -> None:
        verdict = f"limit: {limit:14}{'ok' if is_met else 'MISSED'}" if self._judging else ""
        self.missed += self._judging and not is_met
        print(f"{measured:60}{verdict}".rstrip())
