"""The root: its files, its ledger, and the API it belongs to."""

from __future__ import annotations

import threading
from collections.abc import Callable

from batch_assets.core.api.client import ApiClient
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger, Transaction
from batch_assets.core.ledger.connection import bind_endpoint
from batch_assets.core.settings import Settings

FindLost = Callable[[Storage], Callable[[Transaction], None] | None]
"""What reads the submissions under a root whose ledger is new; returns what writes them into it."""


class Root:
    """Everything a stage works with. Opening it talks to nobody but the ledger.

    Made by `open_root` only: a root that could not rebuild a lost ledger would take everything for unsent.
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
        """The ledger, opened when it is first asked for. A lost one is rebuilt from the files under the root."""
        with self._opening:
            if self._ledger is None:
                self._ledger = Ledger(self.settings.ledger_url, lambda: self._find_lost(self.storage))
            return self._ledger

    @property
    def api(self) -> ApiClient:
        """The API; SettingsError when the settings name none."""
        with self._opening:
            if self._api is None:
                self._api = ApiClient(self.settings)
            return self._api

    def check_endpoint(self) -> None:
        """Raises SettingsError without an API, EndpointMismatchError when the root belongs to another."""
        self.settings.require_endpoint()
        with self.ledger.write() as tx:
            bind_endpoint(tx, self.api.base_url, self.api.organization)

    def close(self) -> None:
        """Closes what was opened; it may be opened again."""
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
