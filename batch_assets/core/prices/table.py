"""Price tables: the one that is shipped, and a file with which users replace or add to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batch_assets.core.errors import SettingsError

VARIABLE = "BATCH_ASSETS_PRICES"
"""The environment variable with the path of a user's own price file."""
_SHIPPED = Path(__file__).with_name("prices.yaml")
_Amount = Annotated[Decimal, Field(ge=0, le=1_000, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rates(_Strict):
    """Prices in USD per million tokens of a live call.

    Attributes:
        input: Tokens of the prompt that are not cached. Writing tokens to the cache costs a multiple of it.
        output: Tokens of the answer.
        cache_read: Tokens of the prompt that were read from the cache.
    """

    input: _Amount
    output: _Amount
    cache_read: _Amount


class LongPrompt(Rates):
    """The prices of a request with a long prompt.

    Attributes:
        over: They apply to prompts with more tokens than this, cached ones included.
    """

    over: int = Field(ge=0)


class ModelPrices(Rates):
    """The prices of a model.

    Attributes:
        long_prompt: Other prices for long prompts; `None` if there are none.
        context_window: The most tokens of a prompt; `None` if not known.
        max_output: The most tokens of an answer; `None` if not known.
        deprecated: The day on which it was announced that the model retires, if it was and is known.
        retires: The day from which requests to the model fail, if it was announced.
    """

    long_prompt: LongPrompt | None = None
    context_window: int | None = Field(default=None, ge=1)
    max_output: int | None = Field(default=None, ge=1)
    deprecated: date | None = None
    retires: date | None = None


class Fees(_Strict):
    """USD for each request of a server tool, without the batch discount."""

    web_search_requests: _Amount


class PriceTable(_Strict):
    """The content of a price file.

    Attributes:
        as_of: The day on which the prices were read.
        source: Where they were read.
        batch_multiplier: The price of a token in a batch as a fraction of its price in a live call.
        cache_write_5m_multiplier: The price of a token that is cached for five minutes, as a multiple of `input`.
        cache_write_1h_multiplier: The same for an hour.
        geo_multipliers: By `inference_geo`: the price of a token as a multiple of its usual price.
        fees: What is paid beside tokens.
        models: The prices by model.
        retired: The day from which requests fail, by models that have no price any more.
    """

    as_of: date
    source: str
    batch_multiplier: Annotated[Decimal, Field(gt=0, le=1)]
    cache_write_5m_multiplier: _Amount
    cache_write_1h_multiplier: _Amount
    geo_multipliers: dict[str, _Amount]
    fees: Fees
    models: dict[str, ModelPrices]
    retired: dict[str, date]


def read_table(path: Path | None) -> PriceTable:
    """Read the prices that are in force.

    Args:
        path: A file of the user's, whose fields take the place of the shipped ones, those of each model too;
            `None` for none.

    Raises:
        SettingsError: When the file cannot be read, or is no price file. Names the file and the field.
    """
    fields = dict(_shipped())
    if path is not None:
        fields = _merged(fields, _read(path))
    try:
        return PriceTable.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        known = ", ".join(PriceTable.model_fields)
        raise SettingsError(
            f"{VARIABLE}: {path}: {field}: {first['msg']}. Its fields are {known}, as in the prices.yaml of "
            "this package"
        ) from None


@cache
def _shipped() -> dict[str, Any]:
    shipped: dict[str, Any] = yaml.safe_load(_SHIPPED.read_text("utf-8"))
    return shipped


def _merged(shipped: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shipped fields with the user's in their place, and maps of both field by field."""
    merged = {**shipped, **own}
    for name, value in own.items():
        before = shipped.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[name] = _merged(before, value)
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{VARIABLE} is {path}, which cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that no calendar has
        raise SettingsError(f"{VARIABLE} is {path}, which is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{VARIABLE} is {path}, which has no map of fields: give at least `models`")
    return content
