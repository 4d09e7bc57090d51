"""Refuse a pipeline under a budget if nothing bounds what its requests can cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from batch_assets.core import env_values
from batch_assets.core.errors import SettingsError, UnboundedCostError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.prices import prices_in
from batch_assets.core.prices.worst_case import server_tool_uses
from batch_assets.core.settings import prices_file_in


def no_bound(pipeline: Pipeline, outline: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what has no bound although there is a budget, as far as it is known without a row.

    Args:
        pipeline: The pipeline.
        outline: Its params as far as they are known without a row.

    Returns:
        (field, what is wrong and what to do), or `None` if there is no budget or nothing is wrong. Also `None` if
        the budget or the prices of the environment cannot be read: no file is wrong then, and no root opens.
    """
    try:
        if pipeline.budget is None and env_values.budget(os.environ) is None:
            return None
        prices = prices_in(prices_file_in(os.environ, pipeline.project))
    except SettingsError:
        return None
    model = outline.get("model")
    if isinstance(model, str) and not prices.knows(model):
        how = "add it to a file of your own (BATCH_ASSETS_PRICES), or remove the budget"
        return "params.model", f"there is no price for {model}, so no budget can hold: {how}"
    try:
        server_tool_uses(outline)
    except UnboundedCostError as error:
        return error.field, f"{error.problem}, so no budget can hold. Change that, or remove the budget"
    return None
