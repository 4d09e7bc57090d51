"""The credentials of the API, one cheap call with them, and the clocks that the call shows."""

from __future__ import annotations

import os
import re
import time

from batch_assets.cli.doctor.finding import Finding, Findings, ok, skipped, wrong
from batch_assets.cli.doctor.ledger import tables_version
from batch_assets.cli.remedies import error_as_text
from batch_assets.core.api.client import ApiClient
from batch_assets.core.api.errors import ApiError, RefusedError
from batch_assets.core.client_settings import CREDENTIALS, REAL_BASE_URL, Provider
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.ledger.endpoint import Endpoint, check_endpoint
from batch_assets.core.ledger.intents import CLOCK_MARGIN_SECONDS
from batch_assets.core.ledger.migrations import HEAD
from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from batch_assets.core.text import duration

_KEY = CREDENTIALS[0]
_CALL_SECONDS = 15.0
# Before two clocks differ by so much that a batch could be taken for one that was sent earlier.
_CLOCK_SECONDS = CLOCK_MARGIN_SECONDS / 5


def api_findings(settings: Settings, *, root_answers: bool = True) -> Findings:
    """Check key, endpoint and clock. The only call lists one batch at the configured base URL.

    Args:
        settings: Those of the API.
        root_answers: Whether the root may be called, which is bound to one API.
    """
    key = _key_finding(settings)
    yield key
    if settings.base_url is None or key.mark == "wrong":
        yield skipped("endpoint", "there are no credentials to call the API with")
        yield skipped("clock", "the API was not called")
        return
    api = ApiClient(settings)
    try:
        api.page(limit=1, seconds=_CALL_SECONDS)
    except (ApiError, BatchAssetsError) as error:
        yield wrong("endpoint", f"{api.base_url} does not list its batches: {error}", _change(error, settings))
        yield skipped("clock", "the API did not answer")
        return
    finally:
        api.close()
    yield _endpoint_finding(settings, api) if root_answers else ok("endpoint", f"{api.base_url} answers")
    yield clock_finding(api.server_time, time.time())


def _key_finding(settings: Settings) -> Finding:
    """Check the form of the credentials. No text repeats any part of them."""
    if settings.emulator_url is not None:
        return ok("key", f"the emulator at {settings.emulator_url} needs none; nothing is sent to the real API")
    if settings.base_url is None:
        if settings.client.lacks is not None:
            provider = settings.client.provider
            return wrong("key", f"the provider {provider} cannot be called", f"set {settings.client.lacks}")
        return wrong(
            "key",
            "no credentials are set",
            f"export {_KEY}=…  # for every process that runs pipelines",
        )
    if settings.client.provider is not Provider.ANTHROPIC:
        used = "a key is" if settings.api_key is not None else "the credentials of this machine are"
        return ok("key", f"{used} used for the provider {settings.client.provider}")
    if not settings.has_credentials:
        return ok("key", f"none is set; {settings.base_url} gets a placeholder")
    name = (
        "api_key" if settings.api_key is not None else next(name for name in CREDENTIALS if os.environ.get(name))
    )
    if name not in ("api_key", _KEY):
        return ok("key", f"{name} is set")
    key = settings.api_key or os.environ[_KEY]
    if re.search(r"\s|[\"']|[^\x21-\x7e]", key):
        return wrong("key", f"{name} has a space, a quote or a line break in it", f"set {name} to the key alone")
    if settings.base_url == REAL_BASE_URL and not key.startswith("sk-ant-"):
        return wrong(
            "key",
            f"{name} does not begin with sk-ant-, as the keys of {REAL_BASE_URL} do",
            f"set {name} to such a key",
        )
    return ok("key", f"{name} is set, and has the form of a key")


def _change(error: Exception, settings: Settings) -> str:
    if settings.client.provider is not Provider.ANTHROPIC:
        return "check the credentials, the workspace and the base URL"
    if isinstance(error, RefusedError) and error.status in (401, 403):
        return f"set {_KEY} to a key of this root's workspace"
    if settings.emulator_url is not None:
        return "start it with `batch-assets emulator`, or set BATCH_ASSETS_EMULATOR to the URL of one that runs"
    return "check ANTHROPIC_BASE_URL, HTTPS_PROXY and the network of this machine"


def _endpoint_finding(settings: Settings, api: ApiClient) -> Finding:
    """Compare the API that answered with the one that the root is bound to."""
    text = f"{api.base_url} answers"
    try:
        if tables_version(settings) != HEAD:
            return ok("endpoint", text)
        with open_root(settings) as root, root.ledger.read() as tx:
            check_endpoint(tx, Endpoint(api.base_url, api.organization, api.workspace))
    except BatchAssetsError as error:
        return wrong("endpoint", error_as_text(error))
    return ok("endpoint", f"{text}, and the root belongs to it or to no API yet")


def clock_finding(server: float | None, here: float) -> Finding:
    """Compare two clocks.

    Args:
        server: The API's time, in seconds since 1970; None if its answer did not show it.
        here: The time of this machine.
    """
    if server is None:
        return skipped("clock", "the API's answer has no header Date")
    difference = here - server
    side = "ahead of" if difference > 0 else "behind"
    text = f"this machine's clock is {duration(abs(difference))} {side} the API's"
    if abs(difference) > _CLOCK_SECONDS:
        return wrong("clock", text, "timedatectl set-ntp true")
    return ok("clock", text)
