"""The core's errors as Dagster failures: their text is for the person who opens the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from batch_assets.core.errors import (
    BatchAssetsError,
    ConfigError,
    DatasetError,
    EndpointMismatchError,
    SettingsError,
    SubmissionStoppedError,
)

# Repeating the step as it is would fail again: a person has to change something.
_NEEDS_A_PERSON = (ConfigError, DatasetError, EndpointMismatchError, SettingsError, SubmissionStoppedError)


@contextmanager
def explained() -> Iterator[None]:
    """Turns an error that this project raises on purpose into a failure that shows its text."""
    try:
        yield
    except BatchAssetsError as error:
        retryable = not isinstance(error, _NEEDS_A_PERSON)
        raise dg.Failure(description=str(error), allow_retries=retryable) from None
