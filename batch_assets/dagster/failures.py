"""The core's errors as Dagster failures, so that the run shows their text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg

from batch_assets.core.errors import BatchAssetsError, Failure, FinalError
from batch_assets.dagster.remedies import error_as_text

T = TypeVar("T")


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that this project raises on purpose into a failure that shows its text."""
    try:
        yield
    except BatchAssetsError as error:
        raise dg.Failure(
            description=error_as_text(error), allow_retries=not isinstance(error, FinalError)
        ) from None


def result_of(outcome: T | Failure) -> T:
    """Return what became of one of several partitions.

    Raises:
        dg.Failure: When the system failed it.
        BatchAssetsError: When it failed for another reason.
    """
    if isinstance(outcome, OSError):
        raise dg.Failure(description=f"{type(outcome).__name__}: {outcome}") from outcome
    if isinstance(outcome, BatchAssetsError):
        raise outcome
    return outcome
