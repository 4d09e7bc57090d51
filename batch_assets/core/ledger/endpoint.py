"""The API endpoint that a root is bound to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.core.errors import EndpointMismatchError
from batch_assets.core.ledger import tables
from batch_assets.core.ledger.connection import Transaction

# What the emulator reports as the organization of every key.
_EMULATOR = "emulator"


@dataclass(frozen=True)
class Endpoint:
    """An API, as far as it is known.

    Attributes:
        base_url: Its URL.
        organization: The organization of the credentials; `None` if the API did not report it.
        workspace: The workspace that the settings name; `None` for that of the credentials.
    """

    base_url: str
    organization: str | None = None
    workspace: str | None = None


def bind_endpoint(tx: Transaction, endpoint: Endpoint) -> None:
    """Bind the root to its API endpoint at first use, and refuse any other from then on.

    Raises:
        EndpointMismatchError: When the root belongs to another base URL, organization or workspace.
    """
    bound = check_endpoint(tx, endpoint)
    if not _is_all_bound(bound, endpoint):
        known = {name: value for name, value in asdict(endpoint).items() if value is not None}
        tx.execute(sa.update(tables.endpoint).values(**known, recorded_at=tx.now))


def bound_url(tx: Transaction) -> str | None:
    """Return the base URL of the API that the root is bound to; `None` if it is bound to none yet."""
    url: str | None = tx.execute(sa.select(tables.endpoint.c.base_url)).scalar_one()
    return url


def is_emulated(tx: Transaction) -> bool:
    """Whether the root is bound to the emulator, whose answers are made up and not billed."""
    is_its = sa.select(tables.endpoint.c.organization == _EMULATOR)
    return bool(tx.execute(is_its).scalar_one())


def is_bound(tx: Transaction, endpoint: Endpoint) -> bool:
    """Whether the root is bound to an endpoint, with all that is known about it.

    Raises:
        EndpointMismatchError: As `bind_endpoint`.
    """
    return _is_all_bound(check_endpoint(tx, endpoint), endpoint)


def _is_all_bound(bound: sa.Row[Any], endpoint: Endpoint) -> bool:
    return (
        bound.base_url is not None
        and (bound.organization is not None or endpoint.organization is None)
        and (bound.workspace is not None or endpoint.workspace is None)
    )


def check_endpoint(tx: Transaction, endpoint: Endpoint) -> sa.Row[Any]:
    """Refuse an endpoint that is not the one that the root is bound to.

    A root of an earlier version, or one that was used with the workspace of its key, is bound to a workspace when
    the settings first name one.

    Returns:
        The row of the endpoint. Its `base_url` is `None` if the root is bound to none yet.

    Raises:
        EndpointMismatchError: As `bind_endpoint`.
    """
    bound = tx.execute(sa.select(tables.endpoint)).one()
    base_url, organization = endpoint.base_url, endpoint.organization
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
    if bound.workspace is not None and bound.workspace != endpoint.workspace:
        now = endpoint.workspace if endpoint.workspace is not None else "that of the credentials"
        raise EndpointMismatchError(
            f"This root belongs to the workspace {bound.workspace}, but the workspace is now {now}. A "
            "workspace does not show the batches of another one. Set the workspace to "
            f"{bound.workspace}, or use a separate root for this workspace."
        )
    return bound
