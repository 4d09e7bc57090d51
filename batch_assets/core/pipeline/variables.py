"""The names of environment variables in a pipeline file."""

from __future__ import annotations

import re

from batch_assets.core.client_settings import SECRETS


def check_not_credentials(name: str) -> str:
    """Return the name of an environment variable, after checking that it does not hold the API's own key.

    A pipeline file says where the value of a variable goes, such as to a chat server. The API's key goes only to
    the API.

    Raises:
        ValueError: When it does.
    """
    if name.upper() in SECRETS:
        raise ValueError(
            f"{name} holds the credentials of the API, which go to the API alone: name another variable"
        )
    return name


def is_variable(name: str) -> bool:
    """Whether a text may be the name of an environment variable."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None
