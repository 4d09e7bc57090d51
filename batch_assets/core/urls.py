"""Secrets in what is written to manifests, metadata and errors: URLs, queries and params."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

SECRET_NAME = re.compile(
    r"pass|pwd|secret|token|credential|signature|bearer|session_?id"
    r"|(api|auth|access|private|account|shared|subscription|functions)[_-]?key",
    re.IGNORECASE,
)
"""What the name of a parameter with a secret contains."""
ELSEWHERE = (
    "Leave it out, and give it to fsspec in its own configuration: variables such as FSSPEC_FTP_PASSWORD, or "
    "those of the provider, such as AWS_SECRET_ACCESS_KEY"
)
"""Where the credentials of a folder or a file belong, as a sentence without its period."""

HIDDEN = "***"
"""The text in place of a secret."""
# A secret that is shorter is hidden only where it is a word of its own.
_DISTINCTIVE = 4
# Params with a secret, such as the token of an MCP server.
_SECRET_PARAM = re.compile(r"authorization(_token)?|.*(password|secret|api_key|access_token|auth_token)")
# fsspec links URLs with `::`, which is also within an IPv6 address.
_LINK = re.compile(r"::(?![^\[\]/]*\])")
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*):([/\\]*)(.*)", re.IGNORECASE | re.DOTALL)
# A user, perhaps with a password. A host and a port before a path with an @ are neither.
_USER = re.compile(r"(?P<user>[^/?#@:]*)(?::(?!\d*[/?#])(?P<password>[^@]*))?@")
_PARAMETER = re.compile(r"\s*([\w.%\[\]-]+)\s*=[^&;#]")
# Names of parameters with a secret that are not recognizable by a part.
_SECRET_NAMES = {
    *("sig", "key", "auth", "authorization", "sas", "code", "jwt", "hmac", "otp", "sid", "session", "ticket"),
    *("tempauth", "pw"),
}
# With these, a user without a password is a token. Elsewhere it is a user, a container or a project.
_TOKEN_SCHEMES = {"http", "https", "webdav", "webdavs"}
# Their addresses are paths, and have no host.
_PATHS = {"file", "local", "memory"}
# fsspec's git://repository:ref@path and github://org:repository@ref
_WITHOUT_USERS = {"git", "github"}
_URL_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_SETTING_IN_LITERAL = re.compile(rf"'[^']*?\b\w*(?:{SECRET_NAME.pattern})\w*\s*=\s*[^\s'][^']*'", re.IGNORECASE)


def secret_in(url: str) -> str | None:
    """Say what secret a URL contains.

    Args:
        url: A URL, URLs that `::` links as fsspec does, or a local path.

    Returns:
        Which part of it is secret, such as "a password", without its value; `None` if there is none.
    """
    return next((secret for part in _LINK.split(url) if (secret := _secret_in_one(part)) is not None), None)


def _secret_in_one(url: str) -> str | None:
    match = _URL.match(url)
    if match is None:
        return None
    scheme, slashes, address = match[1].lower(), match[2], match[3]
    if not slashes.startswith("//") and scheme not in _TOKEN_SCHEMES:
        return None  # a local path. With one of these schemes, slashes may be missing or wrong.
    if scheme in _PATHS:
        address = slashes[2:] + address
    user = _USER.match(address.lstrip("@"))
    if user is not None and scheme not in _WITHOUT_USERS:
        if user["password"] or ":" in unquote(user["user"]):
            return "a password"
        if user["user"] and scheme in _TOKEN_SCHEMES:
            return "a user, which may be a token"
    parameters = re.split("[?#;]", address, maxsplit=1)
    name = next(_secret_parameters(parameters[-1]), None) if len(parameters) > 1 else None
    return f"the parameter {name}" if name is not None else None


def _secret_parameters(text: str) -> Iterator[str]:
    for parameter in re.split(r"[&;?]", text):
        match = _PARAMETER.match(parameter)
        name = unquote(match[1]) if match is not None else ""
        if SECRET_NAME.search(name) or name.lower() in _SECRET_NAMES:
            yield name


def secret_in_query(query: str) -> str | None:
    """Say what secret the text of a query contains: in a URL, or in a connection string of another database.

    Returns:
        Which part of it is secret, without its value; `None` if there is none.
    """
    for url in _URL_IN_TEXT.findall(query):
        if (secret := secret_in(url)) is not None:
            return secret
    return "a connection string with a password" if _SETTING_IN_LITERAL.search(query) else None


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return a text with `HIDDEN` for each of some secrets.

    A very short one is left within words: what is missing from these would tell its letters.

    Args:
        text: The text.
        secrets: The secrets, in all forms in which the text may have them.
    """
    for secret in sorted(filter(None, set(secrets)), key=len, reverse=True):
        if len(secret) >= _DISTINCTIVE:
            text = text.replace(secret, HIDDEN)
        else:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def without_secrets(params: Any) -> Any:
    """Return params with `HIDDEN` for each text whose name shows that it is a secret."""
    if isinstance(params, dict):
        return {
            name: HIDDEN
            if isinstance(value, str) and _SECRET_PARAM.fullmatch(str(name))
            else without_secrets(value)
            for name, value in params.items()
        }
    return [without_secrets(value) for value in params] if isinstance(params, list) else params
