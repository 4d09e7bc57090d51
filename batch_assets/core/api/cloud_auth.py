"""Authentication at cloud providers: calls signed for AWS, and tokens of Google Cloud.

The SDK's own clients for both do the same, but the one for AWS reads the whole body into memory to sign it. This
one signs the hash of a body that is streamed. Credentials are those of the environment, and go to the calls of one
client alone.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import httpx2

from batch_assets.core.client_settings import ClientSettings, Provider
from batch_assets.core.errors import SettingsError

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

BODY_HASH = "x-batch-assets-body-hash"
"""The header by which a call gives the SHA-256 of a streamed body to the signature. It is not sent."""
# What the SDK's client signs for.
_SERVICE = "aws-external-anthropic"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Headers that a proxy may change, and the SDK's placeholder of a key.
_CHANGEABLE = ("connection", "x-api-key")


class CloudAuth(httpx2.Auth):
    """Adds credentials to each call, also to a repeated one."""

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets of the latest call, which the texts of errors must not repeat."""
        return self._secrets

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the credentials. Without them nothing is sent, as if there was no connection."""
        request.headers.pop("x-api-key", None)
        try:
            self._add(request)
        except Exception as error:  # the text of a failed call for credentials may repeat them
            raise httpx2.ConnectError(f"no credentials could be fetched ({type(error).__name__})") from None
        yield request

    def _add(self, request: httpx2.Request) -> None:
        raise NotImplementedError


class AwsSignature(CloudAuth):
    """Signs each call with the AWS credentials of the environment, as the AWS SDK finds them.

    Args:
        region: The region of the workspace.

    Raises:
        SettingsError: When the package is not installed, or there are no credentials.
    """

    def __init__(self, region: str) -> None:
        super().__init__()
        try:
            from botocore.session import Session
        except ImportError:
            raise _not_installed("aws") from None
        credentials = Session().get_credentials()
        if credentials is None:
            raise SettingsError(
                "no AWS credentials were found, with which calls for the provider aws are signed: set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role"
            )
        self._region, self._credentials = region, credentials

    def _add(self, request: httpx2.Request) -> None:
        from botocore.awsrequest import AWSRequest

        frozen: ReadOnlyCredentials = self._credentials.get_frozen_credentials()
        body_hash = request.headers.pop(BODY_HASH, None) or hashlib.sha256(request.read()).hexdigest()
        headers = {name: value for name, value in request.headers.items() if name not in _CHANGEABLE}
        signed = AWSRequest(method=request.method, url=str(request.url), headers=headers)
        with _unlogged:
            _signer(frozen, self._region, body_hash).add_auth(signed)
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token"):
            if name in signed.headers:
                request.headers[name] = signed.headers[name]
        signature = request.headers["Authorization"]
        self._secrets = (
            *(frozen.access_key, frozen.secret_key, frozen.token or ""),
            *(signature, signature.rpartition("=")[2]),
        )


class _Unlogged(logging.Filter):
    """Keeps a thread from logging while it signs: the package's debug log has the whole headers."""

    def __init__(self) -> None:
        super().__init__()
        self._of_thread = threading.local()
        logging.getLogger("botocore.auth").addFilter(self)

    def __enter__(self) -> None:
        self._of_thread.signs = True

    def __exit__(self, *_: object) -> None:
        self._of_thread.signs = False

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self._of_thread, "signs", False)


_unlogged = _Unlogged()


def _signer(credentials: ReadOnlyCredentials, region: str, body_hash: str) -> Any:
    from botocore.auth import SigV4Auth

    class Signer(SigV4Auth):  # type: ignore[misc]
        """Signs a body by its hash."""

        def payload(self, request: Any) -> str:
            return body_hash

    return Signer(credentials, _SERVICE, region)


class GoogleToken(CloudAuth):
    """Adds a token of Google Cloud's Application Default Credentials to each call.

    Raises:
        SettingsError: When the package is not installed, or there are no credentials.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            import google.auth
            from google.auth.transport.requests import Request
        except ImportError:
            raise _not_installed("google-cloud") from None
        try:
            self._credentials, _ = google.auth.default(scopes=[_SCOPE])
        except Exception as error:  # the text may repeat a part of the file
            raise SettingsError(
                "no usable Google Cloud credentials were found, whose tokens the provider google-cloud is called "
                f"with ({type(error).__name__}): run `gcloud auth application-default login`, set "
                "GOOGLE_APPLICATION_CREDENTIALS to a file with them, or give this machine a service account"
            ) from None
        self._transport = Request()
        self._refreshing = threading.Lock()  # credentials must not be refreshed by two threads at once

    def _add(self, request: httpx2.Request) -> None:
        with self._refreshing:
            if not self._credentials.valid:
                self._credentials.refresh(self._transport)  # type: ignore[no-untyped-call]
            token = str(self._credentials.token)
        request.headers["Authorization"] = f"Bearer {token}"
        self._secrets = (token,)


def auth_of(client: ClientSettings, *, has_key: bool) -> CloudAuth | None:
    """Return what authenticates calls; `None` if the SDK does.

    Args:
        client: How the API is called.
        has_key: Whether there is an API key, which is used instead of a signature.

    Raises:
        SettingsError: When a package is not installed, or there are no credentials.
    """
    match client.provider:
        case Provider.ANTHROPIC:
            return None
        case Provider.AWS:
            if has_key:
                return None
            assert client.region is not None
            return AwsSignature(client.region)
        case Provider.GOOGLE_CLOUD:
            return GoogleToken()


def _not_installed(extra: str) -> SettingsError:
    return SettingsError(
        f"the provider {extra} needs a package that is not installed: pip install 'batch-assets[{extra}]'"
    )
