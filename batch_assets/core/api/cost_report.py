"""What the provider charges for batches by day and model, from its usage and cost API.

It needs an admin key, which may do much more than the key of a workspace. It comes from the environment, goes to
the base URL only, and is stored nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from batch_assets.core.api.client import ApiClient
from batch_assets.core.api.errors import UnknownOutcomeError, translated
from batch_assets.core.api.response_hooks import raw_response
from batch_assets.core.client_settings import ADMIN_KEY, REAL_BASE_URL, Provider
from batch_assets.core.errors import SettingsError
from batch_assets.core.settings import Settings

COST = "/v1/organizations/analytics/cost"
MOST_DAYS = 31
"""The most days of a call."""
PAGE = 1000  # rows
_BETA = "analytics-usage-cost-2026-08-24"
_PICODOLLARS = 10**10  # of a cent


@dataclass(frozen=True)
class Charge:
    """What the provider charges for the batches of a day that a model answered.

    Attributes:
        day: The UTC day.
        model: The model; "" for amounts of no model.
        picodollars: The amount.
    """

    day: date
    model: str
    picodollars: int


class CostReport(ApiClient):
    """The provider's report of costs.

    Args:
        settings: Names the API. The admin key is that of the environment; an emulator gets none.

    Raises:
        SettingsError: When the environment has no admin key.
    """

    def __init__(self, settings: Settings) -> None:
        key = os.environ.get(ADMIN_KEY) or None
        if key is None and settings.emulator_url is None:
            raise SettingsError(
                f"the provider's bill needs an admin key: set {ADMIN_KEY} to one, which an admin of the "
                "organization creates in the Console"
            )
        if settings.client.provider is not Provider.ANTHROPIC:
            raise SettingsError(
                f"the provider {settings.client.provider} has a bill of its own, which cannot be read here: "
                "compare it with the table of what was spent"
            )
        base_url = settings.base_url or REAL_BASE_URL
        # An admin key belongs to no workspace.
        client = replace(settings.client, workspace=None)
        super().__init__(replace(settings, api_key=key, has_credentials=True, base_url=base_url, client=client))

    def charges(
        self, first: date, last: date, workspaces: Sequence[str] = (), *, limit: int = PAGE
    ) -> Iterator[Charge]:
        """Yield what batches cost on some days, the first day first.

        Args:
            first: The first UTC day.
            last: The last one.
            workspaces: The ids of the workspaces that count; none for the whole organization.
            limit: The largest number of rows on a page.

        Raises:
            ApiError: As `ApiClient.retrieve`. What was yielded before is then not the whole report.
        """
        while first <= last:
            until = min(last, first + timedelta(days=MOST_DAYS - 1))
            yield from self._pages(_query(first, until, workspaces, limit))
            first = until + timedelta(days=1)

    def _pages(self, query: dict[str, Any]) -> Iterator[Charge]:
        seen: set[str] = set()
        while True:
            with translated(self._hide):
                response = self._sdk.get(
                    COST,
                    cast_to=raw_response(),
                    stream=True,
                    options={"params": query, "headers": {"anthropic-beta": _BETA}},
                )
            body = self._json(response, "cost")
            try:
                charges = [_charge(row) for row in body["data"]]
                has_more, page = bool(body["has_more"]), body.get("next_page")
            except (KeyError, TypeError, ValueError, InvalidOperation) as error:
                raise UnknownOutcomeError(f"cost: the answer is not a report of costs: {error!r}") from None
            yield from charges
            if not has_more:
                return
            if not isinstance(page, str) or not page or page in seen:
                raise UnknownOutcomeError(
                    "cost: there are more pages, but the answer does not say where they begin"
                )
            seen.add(page)
            query = query | {"page": page}


def _query(first: date, last: date, workspaces: Sequence[str], limit: int) -> dict[str, Any]:
    query = {
        "starting_at": _midnight(first),
        "ending_at": _midnight(last + timedelta(days=1)),
        "time_bucket_width": "1d",
        "group_by": ["model"],
        "products": ["message_batches_api"],
        "order_by": "time",
        "order": "asc",
        "limit": limit,
    }
    return query | ({"workspace_ids": list(workspaces)} if workspaces else {})


def _midnight(day: date) -> str:
    return datetime.combine(day, time(), UTC).isoformat().replace("+00:00", "Z")


def _charge(row: Mapping[str, Any]) -> Charge:
    amount = row["cost"]
    if amount["currency"] != "USD":
        raise ValueError(f"an amount in {amount['currency']}")
    day = datetime.fromisoformat(row["starting_at"]).astimezone(UTC).date()
    return Charge(day, row["group"]["model"] or "", round(Decimal(amount["amount"]) * _PICODOLLARS))
