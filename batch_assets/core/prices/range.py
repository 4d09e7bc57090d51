"""A range of amounts."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.prices.money import usd
from batch_assets.core.text import dollars, exact_dollars


@dataclass(frozen=True)
class Range:
    """A range of amounts in picodollars.

    Attributes:
        low: The lower end.
        expected: The most likely amount; `None` if there is nothing to expect it from.
        high: The upper end.
    """

    low: int
    expected: int | None
    high: int

    def __add__(self, other: Range) -> Range:
        known = self.expected is not None and other.expected is not None
        expected = (self.expected or 0) + (other.expected or 0) if known else None
        return Range(self.low + other.low, expected, self.high + other.high)

    def times(self, factor: float) -> Range:
        """Return the range with all amounts multiplied."""
        expected = round(self.expected * factor) if self.expected is not None else None
        return Range(round(self.low * factor), expected, round(self.high * factor))

    def less(self, amount: int) -> Range:
        """Return the range with all amounts reduced by one amount, but to no less than 0."""
        expected = max(0, self.expected - amount) if self.expected is not None else None
        return Range(max(0, self.low - amount), expected, max(0, self.high - amount))

    @property
    def as_text(self) -> str:
        """The range for users: "$0.0061 to $0.0094", with "about $0.0078" if that is known."""
        if dollars(usd(self.low)) == dollars(usd(self.high)):
            return dollars(usd(self.high))
        ends = f"{dollars(usd(self.low))} to {dollars(usd(self.high))}"
        if self.expected is None:
            return ends
        expected = dollars(usd(self.expected))
        if expected.startswith("less"):
            expected = exact_dollars(usd(self.expected))
        return f"{ends}, about {expected}"
