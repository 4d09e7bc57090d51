"""How the API is called: the provider that runs it, the workspace, the user profile, and the timeout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

from batch_assets.core.errors import SettingsError
from batch_assets.core.urls import secret_in

# Every variable in which the SDK looks for credentials (anthropic 2.x, `_client.py`).
CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_PROFILE",
    "ANTHROPIC_IDENTITY_TOKEN",
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
)
AWS_KEY = "ANTHROPIC_AWS_API_KEY"
"""The variable with an API key of Claude Platform on AWS. Without it, calls are signed with AWS credentials."""
ADMIN_KEY = "ANTHROPIC_ADMIN_KEY"
"""The variable with a key that may read the organization's costs."""
SECRETS = (*CREDENTIALS, AWS_KEY, ADMIN_KEY)
"""Variables whose values go to the API alone."""
_EMULATORS = ("BATCH_ASSETS_EMULATOR", "emulator_url")
_BASE_URLS = (
    *("BATCH_ASSETS_EMULATOR", "ANTHROPIC_BASE_URL"),
    *("ANTHROPIC_AWS_BASE_URL", "ANTHROPIC_GOOGLE_CLOUD_BASE_URL"),
)
REAL_BASE_URL = "https://api.anthropic.com"
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 5.0, 600.0
"""Bounds in seconds. A create that had no answer for longer than the upper one counts as ended elsewhere."""
WORKSPACE = "BATCH_ASSETS_WORKSPACE"
"""The variable with the id of the workspace."""
PROVIDER = "BATCH_ASSETS_PROVIDER"
"""The variable with the provider."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_PART_OF_URL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class Provider(StrEnum):
    """Who runs the API."""

    ANTHROPIC = "anthropic"
    """Anthropic, or a gateway that speaks its API."""
    AWS = "aws"
    """Claude Platform on AWS."""
    GOOGLE_CLOUD = "google-cloud"
    """Claude Models on Google Cloud (Anthropic managed)."""


@dataclass(frozen=True)
class ClientSettings:
    """How the API is called.

    Attributes:
        provider: Who runs the API.
        workspace: The id of the workspace; `None` for that of the credentials.
        profile: The id of the user profile that requests are attributed to; `None` for none.
        timeout: Seconds that the API may take to answer a call; `None` for the defaults of each call.
        region: The AWS region that signatures are for; `None` with other providers.
        lacks: What is missing to call the API, and how to set it; `None` if nothing is.
    """

    provider: Provider = Provider.ANTHROPIC
    workspace: str | None = None
    profile: str | None = None
    timeout: float | None = None
    region: str | None = None
    lacks: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """An API and how it is called.

    Attributes:
        client: How it is called.
        base_url: Its URL; `None` if it is unknown.
        emulator_url: The same, if it is an emulator; else `None`.
        has_credentials: Whether there are credentials, or, at a cloud provider, ways to find them.
        api_key: A key that replaces those of the environment; `None` for none.
    """

    client: ClientSettings
    base_url: str | None
    emulator_url: str | None
    has_credentials: bool
    api_key: str | None = field(repr=False)


@dataclass(frozen=True)
class ClientOverrides:
    """Values that replace environment variables. None leaves the variable in force.

    Attributes:
        provider: Replaces BATCH_ASSETS_PROVIDER.
        workspace: Replaces BATCH_ASSETS_WORKSPACE and the SDK's variables.
        profile: Replaces BATCH_ASSETS_PROFILE.
        timeout: Replaces BATCH_ASSETS_TIMEOUT.
        api_key: Replaces all credentials of the environment.
        base_url: Replaces the base URL of the environment.
        emulator_url: Replaces BATCH_ASSETS_EMULATOR.
    """

    provider: str | None = None
    workspace: str | None = None
    profile: str | None = None
    timeout: float | None = None
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    emulator_url: str | None = None


def endpoint_in(env: Mapping[str, str], overrides: ClientOverrides) -> Endpoint:
    """Return the API that settings name. An emulator takes the part of any provider, and gets no credentials.

    Args:
        env: Environment variables.
        overrides: Values that replace some of them.

    Raises:
        SettingsError: When a value cannot be used. The error names the variable or the override.
    """
    for name, url in (
        *((name, env.get(name)) for name in _BASE_URLS),
        ("emulator_url", overrides.emulator_url),
        ("base_url", overrides.base_url),
    ):
        _check_base_url(name, url or "")
    emulator = overrides.emulator_url or env.get("BATCH_ASSETS_EMULATOR") or None
    base_url, api_key = overrides.base_url, overrides.api_key
    provider = _provider(env, overrides.provider)
    client = ClientSettings(
        provider=Provider.ANTHROPIC if emulator is not None else provider,
        workspace=_workspace(env, overrides.workspace, provider),
        profile=_id(env, "BATCH_ASSETS_PROFILE", "profile", overrides.profile),
        timeout=_timeout(env, overrides.timeout),
    )
    if emulator is not None:
        has_credentials = api_key is not None or _has_any(env, *CREDENTIALS)
        return Endpoint(client, emulator, emulator, has_credentials, api_key)
    match provider:
        case Provider.ANTHROPIC:
            has_credentials = api_key is not None or _has_any(env, *CREDENTIALS)
            url = base_url or env.get("ANTHROPIC_BASE_URL") or (REAL_BASE_URL if has_credentials else None)
            return Endpoint(client, url, None, has_credentials, api_key)
        case Provider.AWS:
            return _on_aws(env, client, base_url, api_key or env.get(AWS_KEY) or None)
        case Provider.GOOGLE_CLOUD:
            if api_key is not None:
                raise SettingsError(
                    "api_key is set, and the provider google-cloud takes none: leave api_key out, and calls are "
                    "made with Google Cloud's Application Default Credentials"
                )
            return _on_google_cloud(env, client, base_url)


def _on_aws(env: Mapping[str, str], client: ClientSettings, url: str | None, key: str | None) -> Endpoint:
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None
    if region is not None and not _PART_OF_URL.fullmatch(region):
        raise SettingsError(f"AWS_REGION is {region!r}: set it to the name of a region, such as us-east-1")
    url = url or env.get("ANTHROPIC_AWS_BASE_URL") or None
    if url is None and region is not None:
        url = f"https://aws-external-anthropic.{region}.api.aws"
    lacks = None
    if client.workspace is None:
        lacks = f"{WORKSPACE} to the id of the workspace"
    elif region is None and (url is None or key is None):
        lacks = "AWS_REGION to the region of the workspace"
    return _known(client, url, lacks, region=region, key=key)


def _on_google_cloud(env: Mapping[str, str], client: ClientSettings, url: str | None) -> Endpoint:
    project = env.get("ANTHROPIC_GOOGLE_CLOUD_PROJECT") or env.get("GOOGLE_CLOUD_PROJECT") or None
    location = env.get("ANTHROPIC_GOOGLE_CLOUD_LOCATION") or "global"
    for name, value in (("PROJECT", project), ("LOCATION", location)):
        if value is not None and not _PART_OF_URL.fullmatch(value):
            raise SettingsError(f"ANTHROPIC_GOOGLE_CLOUD_{name} is {value!r}: set it to the id alone")
    url, lacks = url or env.get("ANTHROPIC_GOOGLE_CLOUD_BASE_URL") or None, None
    if client.workspace is None:
        lacks = f"{WORKSPACE} to the id of the workspace"
    elif url is None and project is None:
        lacks = "ANTHROPIC_GOOGLE_CLOUD_PROJECT to the id of the project"
    elif url is None:
        path = f"v1/projects/{project}/locations/{location}/workspaces/{client.workspace}/invoke"
        url = f"https://claude.googleapis.com/{path}"
    return _known(client, url, lacks, region=None, key=None)


def _known(
    client: ClientSettings, url: str | None, lacks: str | None, *, region: str | None, key: str | None
) -> Endpoint:
    """Make the endpoint of a cloud provider. Without all that it needs, it has no URL."""
    return Endpoint(
        replace(client, region=region, lacks=lacks),
        url if lacks is None else None,
        emulator_url=None,
        has_credentials=True,
        api_key=key,
    )


def _has_any(env: Mapping[str, str], *names: str) -> bool:
    return any(env.get(name) for name in names)


def _provider(env: Mapping[str, str], override: str | None) -> Provider:
    name, text = ("provider", override) if override is not None else (PROVIDER, env.get(PROVIDER))
    if not text:
        return Provider.ANTHROPIC
    try:
        return Provider(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: set it to {', '.join(Provider)}") from None


def _workspace(env: Mapping[str, str], override: str | None, provider: Provider) -> str | None:
    """Read the workspace: by the variable for all providers, or by that of the SDK for a cloud provider."""
    own = _id(env, WORKSPACE, "workspace", override)
    match provider:
        case Provider.ANTHROPIC:
            return own
        case Provider.AWS:
            return own or _id(env, "ANTHROPIC_AWS_WORKSPACE_ID", "", None)
        case Provider.GOOGLE_CLOUD:
            return own or _id(env, "ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID", "", None)


def _id(env: Mapping[str, str], variable: str, field: str, override: str | None) -> str | None:
    name, text = (field, override) if override is not None else (variable, env.get(variable))
    if not text:
        return None
    if not is_id(text):
        raise SettingsError(f"{name} is {text!r}: set it to an id, which has letters, digits, _ and - only")
    return text


def is_id(text: str) -> bool:
    """Whether a text may be the id of a workspace or a user profile. It becomes a header, or a part of a URL."""
    return _ID.fullmatch(text) is not None


def _timeout(env: Mapping[str, str], override: float | None) -> float | None:
    name = "timeout" if override is not None else "BATCH_ASSETS_TIMEOUT"
    text = str(override) if override is not None else env.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not SHORTEST_TIMEOUT <= value <= LONGEST_TIMEOUT:
        raise SettingsError(
            f"{name} is {text!r}: set it to seconds from {SHORTEST_TIMEOUT:.0f} to {LONGEST_TIMEOUT:.0f}"
        )
    return value


def _check_base_url(name: str, url: str) -> None:
    """Refuse what is not a URL, or has credentials: a base URL is written to the ledger, receipts and errors."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its text repeats the host, with a password before it
        parts = urlsplit("unreadable:")
    if "@" in parts.netloc or parts.query or parts.fragment or secret_in(url):
        raise SettingsError(
            f"{name} has a user, a password, a query or a fragment, which would be stored with the batches. Set "
            "it without them, and give credentials in ANTHROPIC_API_KEY or ANTHROPIC_CUSTOM_HEADERS"
        )
    if url and (parts.scheme not in ("http", "https") or not parts.netloc):
        example = "http://127.0.0.1:4010" if name in _EMULATORS else REAL_BASE_URL
        raise SettingsError(f"{name} is not a URL: set it to one such as {example}")
