"""The root: its files, its ledger, and its API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from batch_assets.core.api.client import ApiClient
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Lease, Ledger, Transaction
from batch_assets.core.ledger.endpoint import Endpoint, bind_endpoint, is_bound
from batch_assets.core.ledger.records import Pairing
from batch_assets.core.settings import Settings

_NOTED_SECONDS = 10.0


@dataclass(frozen=True)
class Recovery:
    """What a root does to its ledger. `open_root` provides it.

    Attributes:
        open_ledger: Opens the ledger: rebuilds a lost one, and refuses one that does not belong to the root.
        catch_up: Adds what a pipeline's files show and an older ledger does not know. Takes the arguments of
            `Root.catch_up`, after the root.
        pipelines_of: Returns the names of the pipelines that have files under a root.
        check_files: Refuses a pipeline that has lost its files.
        note_key: Records the hash of the API key beside the files, for a ledger that is lost.
    """

    open_ledger: Callable[[Settings, Storage], tuple[Ledger, Pairing]]
    catch_up: Callable[[Root, str, str | None, Lease | None, float | None], None]
    pipelines_of: Callable[[Storage], Iterator[str]]
    check_files: Callable[[Settings, Storage, Transaction, str], None]
    note_key: Callable[[Storage, Ledger, str | None], None]


class Root:
    """Everything a stage works with. Opening it connects to nothing but the ledger.

    Use `open_root` to create it: a root that could not rebuild a lost ledger would treat everything as unsent.

    Args:
        settings: Where files, ledger and API are.
        recovery: Opens the ledger, and adds what it does not know.

    Attributes:
        kept: What was learned and serves for several partitions, until the root is closed. Who keeps something
            here checks whether it is still true.
    """

    def __init__(self, settings: Settings, recovery: Recovery) -> None:
        self.settings = settings
        self.storage = Storage.of(settings)
        self._recovery = recovery
        self._opening = threading.Lock()
        self._opened: tuple[Ledger, Pairing] | None = None
        self._api: ApiClient | None = None
        self._caught_up: set[str] = set()
        self._noted_at = -_NOTED_SECONDS
        self.kept: dict[str, object] = {}

    @property
    def ledger(self) -> Ledger:
        """The ledger, opened at first use. A lost ledger is rebuilt from the files under the root.

        Raises:
            PairingError: When the ledger does not belong to the root.
        """
        return self._paired()[0]

    @property
    def mark(self) -> str:
        """The part of every custom_id that distinguishes this root from others: 6 characters of the root's id."""
        return self._paired()[1].mark

    @property
    def salt(self) -> str:
        """A random text of this root, for hashes of secrets. It stays the same if the ledger is rebuilt."""
        return self._paired()[1].root_id

    @property
    def key_hash(self) -> str | None:
        """A salted hash of the API key; `None` if the key is unknown, for example with tokens."""
        return self.api.key_hash(self.salt)

    def note_key(self) -> None:
        """Record beside the files, before something is sent, with which API key.

        In an object store, one look is enough for the files that are sent within ten seconds.
        """
        now = time.monotonic()
        if self.storage.is_local or now - self._noted_at > _NOTED_SECONDS:
            self._recovery.note_key(self.storage, self.ledger, self.key_hash)
            self._noted_at = now

    def _paired(self) -> tuple[Ledger, Pairing]:
        with self._opening:
            if self._opened is None:
                self._opened = self._recovery.open_ledger(self.settings, self.storage)
            return self._opened

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
        with self.ledger.read() as tx:
            if is_bound(tx, self.endpoint):
                return
        with self.ledger.write() as tx:
            bind_endpoint(tx, self.endpoint)

    @property
    def endpoint(self) -> Endpoint:
        """The API, with what is known about it by now."""
        return Endpoint(self.api.base_url, self.api.organization, self.api.workspace)

    def catch_up(
        self, pipeline: str, partition: str | None = None, lease: Lease | None = None, wait: float | None = None
    ) -> None:
        """Add what a pipeline's files show and the ledger does not know, because it is older than they are.

        Args:
            pipeline: The name of the pipeline.
            partition: Look for the traces in this partition only; `None` for all.
            lease: The lease on all of the pipeline's requests, if the caller holds it.
            wait: If something is missing, seconds to wait for this lease; `None` to add nothing now if others
                work on the pipeline's requests.

        Raises:
            BusyError: When something is missing, and the others were not done by then.
        """
        self._recovery.catch_up(self, pipeline, partition, lease, wait)

    def catch_up_for(self, pipeline: str, partition: str, wait: float) -> None:
        """Catch up before a partition is built: look in all partitions once, and later only in the built one.

        Requests of other partitions may be the same. But a run that builds thousands of partitions does not look
        through all of them each time.

        Args:
            pipeline: The name of the pipeline.
            partition: The partition key; "" without partitions.
            wait: See `catch_up`.
        """
        self.catch_up(pipeline, partition if pipeline in self._caught_up else None, wait=wait)
        self._caught_up.add(pipeline)

    def look_again(self) -> None:
        """Let the next `catch_up_for` and `catch_up_once` look in all partitions, as after the root was opened."""
        self._caught_up.clear()

    def catch_up_once(self, pipeline: str | None, wait: float) -> None:
        """Catch up in all partitions of a pipeline, unless this was done since the root was opened.

        Args:
            pipeline: The name of the pipeline; `None` for all pipelines that have files.
            wait: See `catch_up`.
        """
        for name in self._recovery.pipelines_of(self.storage) if pipeline is None else [pipeline]:
            if name not in self._caught_up:
                self.catch_up(name, wait=wait)
                self._caught_up.add(name)

    def check_files(self, pipeline: str) -> None:
        """Check that a pipeline has not lost its files, without which its requests look unanswered.

        Args:
            pipeline: The name of the pipeline.

        Raises:
            PairingError: When most of its newest files are missing, and no user has accepted it.
        """
        with self.ledger.read() as tx:
            self._recovery.check_files(self.settings, self.storage, tx, pipeline)

    def close(self) -> None:
        """Close what was opened. Further use opens it again."""
        with self._opening:
            api, self._api = self._api, None
            opened, self._opened = self._opened, None
            self._caught_up.clear()
            self.kept.clear()
        if api is not None:
            api.close()
        if opened is not None:
            opened[0].close()

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
