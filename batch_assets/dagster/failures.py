"""The core's errors as Dagster failures, so that the run shows their text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from batch_assets.core.errors import BatchAssetsError, FinalError
from batch_assets.dagster.remedies import error_as_text


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that this project raises on purpose into a failure that shows its text."""
    try:
        yield
    except BatchAssetsError as error:
        raise dg.Failure(
            description=error_as_text(error), allow_retries=not isinstance(error, FinalError)
        ) from None
