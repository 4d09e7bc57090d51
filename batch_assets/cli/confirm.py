"""The question before a refresh: what it would cost, and whether to go on."""

from __future__ import annotations

import sys
from typing import Any

import click

from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.estimate import estimate_cost
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.root import Root


class NotConfirmedError(BatchAssetsError):
    """The user did not agree to the cost. Nothing was sent."""


def confirm_cost(
    root: Root, pipeline: Pipeline, partition: str, again: AskAgain, *, table: Any, yes: bool
) -> None:
    """Says what a refresh would cost, and asks on a terminal whether to go on.

    Args:
        again, table: see `build_requests`.
        yes: The user agreed beforehand: no question is asked.

    Errors:
        NotConfirmedError: the answer is no, or there is no terminal to ask on.
    """
    estimate = estimate_cost(root, pipeline, partition, again, table=table)
    click.echo(f"refresh: {estimate.in_words}")
    if yes or not estimate.requests:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError("nothing was sent: there is no terminal to ask on. Say --yes to spend it")
    if not click.confirm("Ask again?"):
        raise NotConfirmedError("nothing was sent")
