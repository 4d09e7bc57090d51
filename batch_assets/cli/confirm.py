"""The confirmation before a refresh: shows its cost and asks whether to continue."""

from __future__ import annotations

import sys
from typing import Any

import click

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.root import Root


class NotConfirmedError(BatchAssetsError):
    """The user did not agree to the cost. Nothing was sent."""


def confirm_cost(
    root: Root, pipeline: Pipeline, partition: str, again: AskAgain, *, table: Any, yes: bool
) -> None:
    """Print what a refresh would cost, and ask on a terminal whether to continue.

    Args:
        root: The root.
        pipeline: The pipeline to refresh.
        partition: The partition key, "" if the pipeline has no partitions.
        again: See `build_requests`.
        table: See `build_requests`.
        yes: Ask nothing, because the user agreed beforehand.

    Raises:
        NotConfirmedError: When the answer is no, or there is no terminal to ask on.
    """
    plan = plan_requests(root, pipeline, partition, again, table=table)
    click.echo(f"refresh: {plan.cost_as_text}")
    if yes or not plan.requests:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError("nothing was sent: there is no terminal to ask on. Pass --yes to confirm")
    if not click.confirm("Send these requests again?"):
        raise NotConfirmedError("nothing was sent")
