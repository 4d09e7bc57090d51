"""The client of the official SDK as this project uses it: endpoint, credentials, workspace and timeouts."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

from batch_assets.core.api.errors import SHORTEST_WAIT
from batch_assets.core.api.hidden import hidden
from batch_assets.core.api.response_hooks import bound, leave_waiting_to_us
from batch_assets.core.api.sdk import sdk
from batch_assets.core.client_settings import Provider
from batch_assets.core.errors import SettingsError
from batch_assets.core.settings import Settings

if TYPE_CHECKING:
    import anthropic

    from batch_assets.core.api.cloud_auth import CloudAuth

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
CREATE_SECONDS = 600.0  # from the last byte of the body to the answer, of a batch or a live call
_READ_RETRIES = 2
_KEY_HASH_BYTES = 16


class SdkClient:
    """The SDK's client for the API of some settings.

    Attributes:
        base_url: The URL that every call and the key go to.
        workspace: The workspace that the settings name; `None` for that of the credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self.base_url = settings.require_endpoint()
        self._client = settings.client
        self.workspace = settings.client.workspace
        self._emulated = settings.emulator_url is not None
        self._has_key = settings.emulator_url is None and settings.has_credentials
        self._api_key = settings.api_key
        self._read_seconds = settings.client.timeout or READ_SECONDS
        self._auth: CloudAuth | None = None
        self._opening = threading.Lock()
        self._opened: anthropic.Anthropic | None = None

    @property
    def opened(self) -> anthropic.Anthropic:
        """The SDK's client. All threads use the same one and share its connections.

        Raises:
            SettingsError: When it cannot be opened.
        """
        with self._opening:
            if self._opened is None:
                try:
                    self._opened = self._open()
                except SettingsError:
                    raise
                except Exception as error:  # the SDK's own text may repeat a part of a proxy's password
                    raise SettingsError(
                        f"no client for the API can be opened ({type(error).__name__}): check the base URL, and "
                        "the URLs in HTTP_PROXY, HTTPS_PROXY and ALL_PROXY. In those, percent-encode special "
                        "characters of the user and the password"
                    ) from None
            return self._opened

    def _open(self) -> anthropic.Anthropic:
        # The SDK sends nothing without a key. The emulator must not get the real key, and a gateway may need none.
        options: dict[str, Any] = {}  # the SDK finds the environment's credentials itself
        if self._api_key is not None and self._has_key:
            options["api_key"] = self._api_key
        elif not self._has_key or self._client.provider is not Provider.ANTHROPIC:
            options["api_key"] = "none"
        if self._client.provider is not Provider.ANTHROPIC:
            from batch_assets.core.api.cloud_auth import auth_of

            self._auth = auth_of(self._client, has_key=self._api_key is not None)
        # The API may be behind a proxy, the emulator never is.
        direct = {self.base_url: None} if self._emulated else {}
        return sdk().client(
            base_url=self.base_url,
            max_retries=_READ_RETRIES,
            timeout=_timeout(self._read_seconds),
            http_client=sdk().http_client(
                follow_redirects=False,
                mounts=direct,
                auth=self._auth,
                event_hooks={"response": [leave_waiting_to_us, bound]},
            ),
            default_headers={"Accept-Encoding": "identity", **self._workspace_headers},
            **options,
        )

    def close(self) -> None:
        """Close its connections."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _workspace_headers(self) -> dict[str, str]:
        """The header that names the workspace. Google Cloud has it in the URL."""
        if self.workspace is None or self._client.provider is Provider.GOOGLE_CLOUD:
            return {}
        return {"anthropic-workspace-id": self.workspace}

    @property
    def profile_headers(self) -> dict[str, str]:
        """The header that attributes requests to a user profile, for calls that have requests."""
        return {"anthropic-user-profile-id": self._client.profile} if self._client.profile is not None else {}

    @property
    def signs_bodies(self) -> bool:
        """Whether a call with a streamed body needs its hash, because calls are signed."""
        return self._client.provider is Provider.AWS and self._api_key is None

    def within(self, seconds: float | None) -> anthropic.Anthropic:
        """Return the client with a timeout that fits one read, its retries included, into `seconds`."""
        if seconds is None:
            return self.opened
        per_try = min(max(seconds / (_READ_RETRIES + 1), SHORTEST_WAIT), self._read_seconds)
        return self.opened.with_options(timeout=_timeout(per_try))

    def once(self) -> anthropic.Anthropic:
        """Return the client for a call that is paid for, which it must not repeat."""
        seconds = self._client.timeout or CREATE_SECONDS
        return self.opened.with_options(max_retries=0, timeout=_timeout(seconds))

    def hide(self, text: str) -> str:
        """Remove credentials from a text."""
        return hidden(text, self.opened, self._auth.secrets if self._auth is not None else ())

    def key_hash(self, salt: str) -> str | None:
        """Return a salted hash of the API key and the workspace, by which a later process recognizes both.

        Args:
            salt: Makes hashes of different roots differ.

        Returns:
            `None` if the settings name no workspace and there is no key, for example with tokens that change all
            the time.
        """
        # The credentials of a cloud provider change, too, but a call for one workspace never gets another one.
        is_key = self._has_key and self._client.provider is Provider.ANTHROPIC
        key = (self.opened.api_key if is_key else None) or ""
        if self.workspace is not None:
            key += f"\n{self.workspace}"
        if not key:
            return None
        return hashlib.blake2b(key.encode(), key=salt.encode(), digest_size=_KEY_HASH_BYTES).hexdigest()


def _timeout(seconds: float) -> Any:
    import httpx2  # as the SDK, it takes time to import: only when the API is called

    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
