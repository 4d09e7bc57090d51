"""Have the API count the tokens of some prompts, which costs nothing."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batch_assets.core.api.client import ApiClient
from batch_assets.core.api.errors import ApiError, NotFoundError, RefusedError
from batch_assets.core.errors import SettingsError
from batch_assets.core.prices.worst_case import parsed_params
from batch_assets.core.requests.estimating import CountTokens
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings

_log = logging.getLogger("batch_assets")

# So many prompts are counted at a time, and fewer of a model say too little.
_AT_ONCE, _FEWEST = 8, 10


def can_count(settings: Settings) -> bool:
    """Whether there is a key or an emulator."""
    return settings.emulator_url is not None or settings.has_credentials


class PromptCounter:
    """Has the API count the tokens of single prompts. A context manager.

    Args:
        settings: Where the API is.

    Attributes:
        problem: Why the API could not count the latest one; `None` if it could, or if there is no key or emulator.
    """

    def __init__(self, settings: Settings) -> None:
        self._api = ApiClient(settings) if can_count(settings) else None
        self.problem: str | None = None

    def __enter__(self) -> PromptCounter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._api is not None:
            self._api.close()

    def count(self, params: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
        """Count the tokens of a prompt; `None` if the API did not.

        Args:
            params: The params of a request.
            headers: Its headers that change its meaning.
        """
        self.problem = None
        if self._api is None:
            return None
        try:
            return self._api.count_tokens(params, headers)
        except (ApiError, SettingsError) as error:
            self.problem = str(error)
            if not isinstance(error, RefusedError | NotFoundError):
                self._api.close()
                self._api = None  # it cannot be reached, and each further call would wait for it again
            return None


def token_counter(root: Root, headers: Mapping[str, str]) -> CountTokens | None:
    """Return what counts the tokens of prompts; `None` without a key or an emulator.

    Args:
        root: The root.
        headers: The headers of the requests that change their meaning.
    """
    if not can_count(root.settings):
        return None

    def count_tokens(bodies: Sequence[bytes]) -> dict[str, float]:
        try:
            root.check_endpoint()
            return _rates(root, bodies, headers)
        except (ApiError, SettingsError) as error:
            _log.warning(f"The tokens of the prompts are estimated, because the API could not count them: {error}")
            return {}

    return count_tokens


def _rates(root: Root, bodies: Sequence[bytes], headers: Mapping[str, str]) -> dict[str, float]:
    """Return the tokens per byte by model, of those models of which enough requests are counted."""
    requests = [parsed_params(body) for body in bodies]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        counting = [pool.submit(root.api.count_tokens, params, headers) for params in requests]
        try:
            counted = [each.result() for each in counting]
        except ApiError:
            for each in counting:
                each.cancel()
            raise
    models = [str(params.get("model")) for params in requests]
    return _by_model(zip(models, counted, map(len, bodies), strict=True), min(_FEWEST, len(bodies)))


def _by_model(counted: Iterable[tuple[str, int, int]], fewest: int) -> dict[str, float]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for model, tokens, size in counted:
        sums[model] = [total + more for total, more in zip(sums[model], (1, tokens, size), strict=True)]
    return {model: tokens / size for model, (count, tokens, size) in sums.items() if count >= fewest}
