"""The root: its files, its ledger, and its API."""

from __future__ import annotations

import threading
from collections.abc import Callable

from batch_assets.core.api.client import ApiClient
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger, Transaction
from batch_assets.core.ledger.connection import bind_endpoint
from batch_assets.core.settings import Settings

FindLost = Callable[[Storage], Callable[[Transaction], None] | None]
"""Called when the ledger is new: reads submissions under the root and returns what writes them to the ledger."""


class Root:
    """Everything a stage works with. Opening it connects to nothing but the ledger.

    Use `open_root` to create it: a root that could not rebuild a lost ledger would treat everything as unsent.

    Args:
        settings: Where files, ledger and API are.
        find_lost: Rebuilds a lost ledger.
    """

    def __init__(self, settings: Settings, find_lost: FindLost) -> None:
        self.settings = settings
        self.storage = Storage(settings.root)
        self._find_lost = find_lost
        self._opening = threading.Lock()
        self._ledger: Ledger | None = None
        self._api: ApiClient | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened at first use. A lost ledger is rebuilt from the files under the root."""
        with self._opening:
            if self._ledger is None:
                self._ledger = Ledger(self.settings.ledger_url, lambda: self._find_lost(self.storage))
            return self._ledger

    @property
    def api(self) -> ApiClient:
        """The API client, created at first use.

        Raises:
            SettingsError: When the settings name no API.
        """
        with self._opening:
            if self._api is None:
                self._api = ApiClient(self.settings)
            return self._api

    def check_endpoint(self) -> None:
        """Check that the root belongs to the API of the settings, and bind it to that API at first use.

        Raises:
            SettingsError: When the settings name no API.
            EndpointMismatchError: When the root belongs to another API.
        """
        self.settings.require_endpoint()
        with self.ledger.write() as tx:
            bind_endpoint(tx, self.api.base_url, self.api.organization)

    def close(self) -> None:
        """Close what was opened. Further use opens it again."""
        with self._opening:
            api, self._api = self._api, None
            ledger, self._ledger = self._ledger, None
        if api is not None:
            api.close()
        if ledger is not None:
            ledger.close()

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
