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


@contextmanager
def explained_system_errors() -> Iterator[None]:
    """Turn an error of the system, such as a full disk, into a failure, for work on one of several partitions."""
    try:
        yield
    except OSError as error:
        raise dg.Failure(description=f"{type(error).__name__}: {error}") from error


def result_of(outcome: T | Failure) -> T:
    """Return what became of one of several partitions.

    Raises:
        dg.Failure: When the system failed it.
        BatchAssetsError: When it failed for another reason.
    """
    if isinstance(outcome, Exception):
        with explained_system_errors():
            raise outcome
    return outcome
