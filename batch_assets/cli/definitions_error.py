"""The error for definitions that do not load, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batch_assets.core.errors import BatchAssetsError


class DefinitionsError(BatchAssetsError):
    """The project's Dagster definitions do not load."""


@contextmanager
def loading() -> Iterator[None]:
    """Turn any exception that the project's own Python files raise into a DefinitionsError."""
    try:
        yield
    except Exception as error:
        raise DefinitionsError(_why_not_loaded(error)) from error


def _why_not_loaded(error: BaseException) -> str:
    """Return the innermost error as text: Dagster wraps it in several of its own."""
    innermost = error
    while not isinstance(innermost, BatchAssetsError):
        inner = innermost.__cause__ or innermost.__context__
        if inner is None:
            hint = "`dg check defs` shows where"
            return f"the project's definitions do not load: {type(innermost).__name__}: {innermost}\n{hint}"
        innermost = inner
    return str(innermost)
