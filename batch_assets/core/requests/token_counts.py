"""Have the API count the tokens of some prompts, which costs nothing."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from batch_assets.core.api.errors import ApiError
from batch_assets.core.errors import SettingsError
from batch_assets.core.prices.worst_case import parsed_params
from batch_assets.core.requests.estimating import CountTokens
from batch_assets.core.root import Root

_log = logging.getLogger("batch_assets")

# So many prompts are counted at a time, and fewer of a model say too little.
_AT_ONCE, _FEWEST = 8, 10


def token_counter(root: Root, headers: Mapping[str, str]) -> CountTokens | None:
    """Return what counts the tokens of prompts; `None` without a key or an emulator.

    Args:
        root: The root.
        headers: The headers of the requests that change their meaning.
    """
    if root.settings.emulator_url is None and not root.settings.has_credentials:
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
