"""What the client uses of the SDK."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from batch_assets.core.template import sdk_modules

if TYPE_CHECKING:
    import anthropic

_choosing = threading.Lock()
_chosen: list[Sdk] = []


@dataclass(frozen=True)
class Sdk:
    """Classes of one copy of the SDK: its client raises its errors.

    Attributes:
        client: The client of the API.
        http_client: Its transport.
        status_error: An answer of the API that is an error.
        connection_error: There was no answer.
    """

    client: type[anthropic.Anthropic]
    http_client: type[anthropic.DefaultHttpxClient]
    status_error: type[anthropic.APIStatusError]
    connection_error: type[anthropic.APIConnectionError]


def sdk() -> Sdk:
    """Import what the client uses of the SDK. All calls of a process return the same.

    Without the rest of the SDK, this takes a third of the time. If other code of the process has imported the SDK,
    or if its log is asked for, the classes are the SDK's own.
    """
    with _choosing:
        if not _chosen:
            _chosen.append(_whole() if sdk_modules.is_loaded() or sdk_modules.is_logged() else _alone())
        return _chosen[0]


def _alone() -> Sdk:
    try:
        names = ("_client", "_base_client", "_exceptions")
        return _from(*(sdk_modules.module_alone(name) for name in names))
    except (ImportError, AttributeError):  # a version of the SDK that is built in another way
        return _whole()


def _whole() -> Sdk:
    import anthropic

    return _from(anthropic, anthropic, anthropic)


def _from(client: ModuleType, transport: ModuleType, errors: ModuleType) -> Sdk:
    return Sdk(client.Anthropic, transport.DefaultHttpxClient, errors.APIStatusError, errors.APIConnectionError)
