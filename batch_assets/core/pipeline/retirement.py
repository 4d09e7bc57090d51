"""Warn of a model that the provider will retire soon."""

from __future__ import annotations

from datetime import date

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.prices import Prices
from batch_assets.core.text import count

_DAYS = 60


def retirement(pipeline: Pipeline, prices: Prices, today: date) -> str | None:
    """Return when the model of a pipeline was deprecated and retires, and what to do.

    Args:
        pipeline: The pipeline.
        prices: The price table, which has the dates that were announced.
        today: The date in UTC.

    Returns:
        `None` if that is more than 60 days from now or was not announced, or if `params.model` depends on the row.
    """
    model = pipeline.template.outline().get("model")
    if not isinstance(model, str):
        return None
    end = prices.end_of(model)
    if end is None or (end - today).days > _DAYS:
        return None
    days = (end - today).days
    when = f"retires on {end}, in {count(days, 'day')}" if days > 0 else f"retired on {end}"
    since = prices.deprecated_since(model)
    if since is not None and days > 0:
        when = f"was deprecated on {since} and {when}"
    return f"params.model: {model} {when}. Requests to it fail from then on: choose another model"
