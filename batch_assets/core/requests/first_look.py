"""What a user should know about a pipeline when it loads, without opening its dataset."""

from __future__ import annotations

from datetime import date

from batch_assets.core.dataset.located_files import GLOB
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.retirement import retirement
from batch_assets.core.prices.prices import Prices
from batch_assets.core.text import nearest


def first_look(pipeline: Pipeline, prices: Prices, today: date) -> list[str]:
    """Return what a user should know before the first run, as texts that say what to do.

    It looks at one path and reads nothing, because every process loads all pipelines. `try_pipeline` looks closer.

    Args:
        pipeline: The pipeline.
        prices: The price list.
        today: The date in UTC.
    """
    return [*model_warnings(pipeline, prices, today), *_missing_dataset(pipeline)]


def model_warnings(pipeline: Pipeline, prices: Prices, today: date) -> list[str]:
    """Return what a user should know about the model, unless it depends on the row.

    Args:
        pipeline: The pipeline.
        prices: The price list, which has the models.
        today: The date in UTC.
    """
    model = pipeline.template.outline().get("model")
    if isinstance(model, str) and not prices.knows(model):
        meant = nearest(model, prices.models)
        hint = f"did you mean {meant!r}? Otherwise give" if meant is not None else "give"
        problem = f"{model!r} has no price, so the API may not know it, and its cost is unknown: {hint} it a price"
        return [str(pipeline.error("params.model", f"{problem} in the price file"))]
    retires = retirement(pipeline, prices, today)
    return [f"{pipeline.source}: {retires}"] if retires is not None else []


def _missing_dataset(pipeline: Pipeline) -> list[str]:
    """Return a text if `dataset.path` names a local file or folder that does not exist.

    Left out are globs, and paths of partitions, which appear one after the other.
    """
    path = pipeline.config.dataset.path
    if path is None or "://" in path or "{" in path or GLOB & set(path) or (pipeline.project / path).exists():
        return []
    problem = f"there is no file or folder {path} yet: relative paths start from {pipeline.project}"
    return [str(pipeline.error("dataset.path", problem))]
