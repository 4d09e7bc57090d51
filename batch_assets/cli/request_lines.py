"""A request as text, as the API would get it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batch_assets.core.text import count

if TYPE_CHECKING:
    from batch_assets.core.requests.preview import PreviewedRow

_DATA = 40  # characters of Base64 that are shown


def request_lines(row: PreviewedRow) -> Iterator[str]:
    """Yield the lines that show the request of a row, or why it has none. The Base64 of media is cut."""
    from batch_assets.core.prices.worst_case import parsed_params

    if row.rejection is not None:
        yield f"row {row.key}: rejected, so it is not sent: {': '.join(row.rejection)}"
    if row.params is None:
        return
    yield f"row {row.key}"
    yield json.dumps(_short(parsed_params(row.params)), indent=2, ensure_ascii=False)
    for name, value in row.headers.items():
        yield f"  {name}: {value}"


def _short(value: Any) -> Any:
    """Return params with the Base64 of media cut."""
    if isinstance(value, dict):
        data = value.get("data")
        if value.get("type") == "base64" and isinstance(data, str) and len(data) > _DATA:
            rest = count(len(data) - _DATA, "more character")
            value = value | {"data": f"{data[:_DATA]}… and {rest}"}
        return {name: _short(inner) for name, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list) else value
