"""The versions of the rendering: what templates print for the same row and the same params.

A later version may print some rows in another way. Such a row would be sent and paid for again, so a submission's
manifest records the version, and the earlier version stays here to find the rows that differ.

- 1: values as results carry them. `tojson` sorts keys and escapes `<`, `&`, `'` and all characters beyond ASCII.
  `order.items` is the method of an object, also if the object has a key of that name. `row` has all columns.
- 2: values as the row has them. `tojson` writes the keys in their own order, UTF-8, ISO dates and decimals.
  `order.items` is the key. `row` has the columns that the row has.
- 3: null is nothing also in filters, `~` and formats, where it was `None`. Values in printed lists and objects
  look as they do alone, where they were Python code such as `Decimal('1.50')`. NaN and infinite numbers print as
  null. JSON numbers keep the digits of a whole number that no double holds, and the sign of -0.0. Times of the day
  have their nanoseconds. In the JSON text of a query, decimals are numbers, and NaN and infinite numbers null.
"""

from __future__ import annotations

from enum import IntEnum


class Rendering(IntEnum):
    """A version of the rendering."""

    STORED = 1
    OWN = 2
    WRITTEN = 3


CURRENT = Rendering.WRITTEN
