"""Remove secrets from texts of the API and of gateways."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from batch_assets.core.urls import SECRET_NAME

if TYPE_CHECKING:
    import anthropic

# A shorter value is a placeholder, not a key. Hiding it could remove ordinary words from a text.
_KEY_LENGTH = 8
_SECRET_HEADER = re.compile(rf"auth|cookie|key|{SECRET_NAME.pattern}", re.IGNORECASE)


def hidden(text: str, client: anthropic.Anthropic, secrets: Iterable[str] = ()) -> str:
    """Remove the key and a gateway's credentials from a text. A gateway may repeat them in an error.

    Args:
        text: The text.
        client: The client that made the call.
        secrets: More that was sent and is secret.
    """
    headers = client.default_headers.items()
    of_headers = [str(value) for name, value in headers if _SECRET_HEADER.search(name)]
    schemeless = [value.rpartition(" ")[2] for value in of_headers]  # without "Bearer "
    for secret in (client.api_key, client.auth_token, *secrets, *of_headers, *schemeless):
        if secret and len(secret) >= _KEY_LENGTH:
            text = text.replace(secret, "[key]")
    return text
