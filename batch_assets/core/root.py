"""The root: its files, its ledger, and the API it belongs to."""

from __future__ import annotations

from functools import cached_property

from batch_assets.core.api.client import ApiClient
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger.connection import bind_endpoint
from batch_assets.core.settings import Settings


class Root:
    """Everything a stage works with. Opening it talks to nobody but the ledger."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.storage = Storage(settings.root)

    @classmethod
    def from_env(cls) -> Root:
        """The root that the environment names."""
        return cls(Settings.from_env())

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger. One that was lost is made again from what lies under the root."""
        from batch_assets.core.recovery.rebuild import find_lost  # only a lost one costs its imports

        return Ledger(self.settings.ledger_url, lambda: find_lost(self.storage))

    @cached_property
    def api(self) -> ApiClient:
        """The API; SettingsError when the environment names none."""
        return ApiClient(self.settings)

    def check_endpoint(self) -> None:
        """Raises SettingsError without an API, EndpointMismatchError when the root belongs to another."""
        self.settings.require_endpoint()
        with self.ledger.write() as tx:
            bind_endpoint(tx, self.api.base_url, self.api.organization)

    def close(self) -> None:
        if "api" in self.__dict__:
            self.api.close()
        if "ledger" in self.__dict__:
            self.ledger.close()

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
