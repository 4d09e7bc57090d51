"""The API endpoint that a root is bound to."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from batch_assets.core.errors import EndpointMismatchError
from batch_assets.core.ledger import tables
from batch_assets.core.ledger.connection import Transaction


def bind_endpoint(tx: Transaction, base_url: str, organization: str | None) -> None:
    """Bind the root to its API endpoint at first use, and refuse any other from then on.

    Raises:
        EndpointMismatchError: When the root belongs to another base URL or organization.
    """
    if not is_bound(tx, base_url, organization):
        values = {"base_url": base_url, "organization": organization, "recorded_at": tx.now}
        tx.execute(sa.update(tables.endpoint).values(values))


def bound_url(tx: Transaction) -> str | None:
    """Return the base URL of the API that the root is bound to; `None` if it is bound to none yet."""
    url: str | None = tx.execute(sa.select(tables.endpoint.c.base_url)).scalar_one()
    return url


def is_bound(tx: Transaction, base_url: str, organization: str | None) -> bool:
    """Whether the root is bound to an endpoint, with all that is known about it.

    Raises:
        EndpointMismatchError: When the root belongs to another base URL or organization.
    """
    bound = check_endpoint(tx, base_url, organization)
    return bound.base_url is not None and (bound.organization is not None or organization is None)


def check_endpoint(tx: Transaction, base_url: str, organization: str | None) -> sa.Row[Any]:
    """Refuse an endpoint that is not the one that the root is bound to.

    Returns:
        The row of the endpoint. Its `base_url` is `None` if the root is bound to none yet.

    Raises:
        EndpointMismatchError: When the root belongs to another base URL or organization.
    """
    bound = tx.execute(sa.select(tables.endpoint)).one()
    if bound.base_url is not None and bound.base_url != base_url:
        raise EndpointMismatchError(
            f"This root belongs to {bound.base_url}, but the API is now {base_url}. Answers from two endpoints "
            f"are never mixed. Use a separate root for this endpoint."
        )
    if bound.organization is not None and organization is not None and bound.organization != organization:
        raise EndpointMismatchError(
            f"This root belongs to the organization {bound.organization}, but the key belongs to {organization}. "
            f"Use an API key of {bound.organization}, or a separate root for this endpoint."
        )
    return bound
