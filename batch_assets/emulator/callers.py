"""Who makes a call, and in which workspace: an API key, a signature of AWS, or a token of Google Cloud.

What a cloud provider's endpoint answers to a wrong signature or token is not known. Here it is 401, as for a key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.requests import Request
from starlette.types import Message

from batch_assets.emulator.service import DEFAULT_WORKSPACE, Settings
from batch_assets.emulator.wire import HttpError

ADMIN = "/v1/organizations/"
"""The beginning of the paths that only admin keys may call, and these call no others."""
_WORKSPACE_HEADER = "anthropic-workspace-id"
_ON_GOOGLE_CLOUD = re.compile(r"/v1/projects/[^/]+/locations/[^/]+/workspaces/(?P<workspace>[^/]+)/invoke(?=/)")
_SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]+)/"
    r"(?P<scope>\d{8}/[a-z0-9-]+/aws-external-anthropic/aws4_request), "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_MOST_SECONDS = 900  # between the clocks of client and server, as AWS has it
_NEEDED = {"host", "x-amz-date", _WORKSPACE_HEADER}


@dataclass(frozen=True)
class Place:
    """Where a call goes.

    Attributes:
        path: The path of the API.
        workspace: The workspace in the path, as Google Cloud has it; `None` for the API's own paths.
    """

    path: str
    workspace: str | None

    @classmethod
    def of(cls, path: str) -> Place:
        """Take the part of Google Cloud off a path."""
        match = _ON_GOOGLE_CLOUD.match(path)
        return cls(path[match.end() :], match["workspace"]) if match is not None else cls(path, None)


def authenticated(request: Request, template: str, place: Place, settings: Settings) -> tuple[Request, str]:
    """Check who makes a call.

    Args:
        request: The call.
        template: The path template of its route.
        place: Where it goes.
        settings: The settings of the emulator.

    Returns:
        The call, whose body is checked while it is read if it is signed, and its workspace.

    Raises:
        HttpError: 401 when there is no accepted key, token or signature; 403 when it may not make this call; 400
            when a workspace is missing.
    """
    authorization = request.headers.get("authorization", "")
    named = request.headers.get(_WORKSPACE_HEADER)
    if authorization.startswith("AWS4-"):
        if "x-api-key" in request.headers:
            raise HttpError(401, "an API key is not accepted beside a signature")
        signed = _Signed(request, authorization, settings.aws_keys)
        if not named:
            raise HttpError(400, f"{_WORKSPACE_HEADER}: header is required")
        return signed.checked(), named
    scheme, _, token = authorization.partition(" ")
    key = request.headers.get("x-api-key", "")
    if place.workspace is not None and key:
        raise HttpError(401, "an API key is not accepted here")
    if not key and scheme.lower() == "bearer":
        key = token.strip()
    keys, workspaces, admin_keys = settings.keys, settings.workspaces, settings.admin_keys
    is_admin = key in admin_keys
    if not key or (keys and key not in keys and key not in workspaces and not is_admin):
        raise HttpError(401, "invalid x-api-key")
    if admin_keys and is_admin != template.startswith(ADMIN):
        raise HttpError(403, f"this key may not call {template}")
    own, named = workspaces.get(key), place.workspace or named
    if named and own not in (None, named):
        raise HttpError(403, f"{_WORKSPACE_HEADER}: the key belongs to another workspace")
    return request, named or own or DEFAULT_WORKSPACE


class _Signed:
    """A call with a signature of AWS, version 4.

    Args:
        request: The call.
        authorization: Its header `Authorization`.
        secrets: The accepted access keys, with their secrets; empty to accept any, whose signature is not checked.

    Raises:
        HttpError: 401 when the signature does not have the form of one, is too old, or is by an unknown key.
    """

    def __init__(self, request: Request, authorization: str, secrets: Mapping[str, str]) -> None:
        match = _SIGNATURE.fullmatch(authorization)
        if match is None:
            raise HttpError(401, "Authorization: not a signature for aws-external-anthropic")
        self._request, self._scope, self._signature = request, match["scope"], match["signature"]
        self._names = match["headers"].split(";")
        if missing := _NEEDED - set(self._names):
            raise HttpError(401, f"SignedHeaders: {', '.join(sorted(missing))} must be signed")
        self._date = request.headers.get("x-amz-date", "")
        try:
            at = datetime.strptime(self._date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise HttpError(401, "x-amz-date: not a time") from None
        if abs(at.timestamp() - time.time()) > _MOST_SECONDS or not self._scope.startswith(self._date[:8]):
            raise HttpError(401, "Signature expired")
        if secrets and match["key"] not in secrets:
            raise HttpError(401, "The security token included in the request is invalid")
        self._secret = secrets.get(match["key"])

    def checked(self) -> Request:
        """Return the call. Its body is checked while it is read; a call without one is checked at once.

        Raises:
            HttpError: 401 when the signature is wrong.
        """
        headers, hash_ = self._request.headers, hashlib.sha256()
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            self._check(hash_.hexdigest())
            return self._request
        receive = self._request.receive

        async def receive_checked() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                hash_.update(message.get("body", b""))
                if not message.get("more_body", False):
                    self._check(hash_.hexdigest())
            return message

        return Request(self._request.scope, receive_checked)

    def _check(self, body_hash: str) -> None:
        if self._secret is None:
            return
        key = f"AWS4{self._secret}".encode()
        for part in self._scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        canonical = hashlib.sha256(self._canonical(body_hash).encode()).hexdigest()
        text = "\n".join(("AWS4-HMAC-SHA256", self._date, self._scope, canonical))
        if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), self._signature):
            raise HttpError(401, "The request signature we calculated does not match the signature you provided")

    def _canonical(self, body_hash: str) -> str:
        scope, headers = self._request.scope, self._request.headers
        path = quote(scope["raw_path"].decode("ascii").partition("?")[0], safe="/-_.~")
        query = "&".join(sorted(filter(None, scope["query_string"].decode("ascii").split("&"))))
        lines = [
            f"{name}:{','.join(' '.join(value.split()) for value in headers.getlist(name))}\n"
            for name in self._names
        ]
        return "\n".join((self._request.method, path, query, "".join(lines), ";".join(self._names), body_hash))
