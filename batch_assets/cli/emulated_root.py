"""Start the emulator for the root of a project that has only used it.

So `status`, `list` and `run` work after `make demo` as after any other run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import click

from batch_assets.core.emulated_root import emulated_root
from batch_assets.core.settings import Settings, find_project

_LOCAL = ("127.0.0.1", "localhost", "::1")
_STARTED = (
    "No API is set, and this project has only used the emulator, so the command starts it: answers are made up "
    "and cost nothing. For the real API, set ANTHROPIC_API_KEY."
)


@contextmanager
def with_api(settings: Settings) -> Iterator[Settings]:
    """Yield settings that name an API: if they name none and have the emulated root, that of its emulator.

    The emulator is started unless it runs, and then stopped at the end.

    Raises:
        SettingsError: When the settings name no API, and the root is another one, or a provider that cannot be
            called.
    """
    is_unset = settings.base_url is None and settings.client.lacks is None
    url = _emulator_of(settings) if is_unset else None
    if url is None:
        settings.require_endpoint()
        yield settings
        return
    from batch_assets.cli.emulator import running

    click.echo(_STARTED, err=True)
    address = urlsplit(url)
    options = {
        "host": address.hostname,
        "port": address.port,
        "state": find_project() / "data" / "emulator",
        "latency": 2.0,
    }
    with running(options) as url:
        yield Settings.from_env({**os.environ, "BATCH_ASSETS_EMULATOR": url})


def _emulator_of(settings: Settings) -> str | None:
    """Return the URL of the emulator that the project's emulated root belongs to; None for another root."""
    from batch_assets.core.ledger.endpoint import bound_url
    from batch_assets.core.open_root import open_root

    if settings.root != str(emulated_root()):
        return None
    with open_root(settings) as root, root.ledger.read() as tx:
        url = bound_url(tx)
    return url if url is not None and urlsplit(url).hostname in _LOCAL else None
