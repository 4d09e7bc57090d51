"""What is wrong with a project's definitions, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batch_assets.core.errors import BatchAssetsError


class DefinitionsError(BatchAssetsError):
    """The project's Dagster definitions do not load."""


@contextmanager
def loading() -> Iterator[None]:
    """While definitions are loaded: whatever a project's own Python files raise becomes a DefinitionsError."""
    try:
        yield
    except Exception as error:
        raise DefinitionsError(_why_not_loaded(error)) from error


def _why_not_loaded(error: BaseException) -> str:
    """Dagster wraps what went wrong in layers of its own: the innermost is for the reader."""
    innermost = error
    while not isinstance(innermost, BatchAssetsError):
        inner = innermost.__cause__ or innermost.__context__
        if inner is None:
            where = "`dg check defs` shows where"
            return f"the project's definitions do not load: {type(innermost).__name__}: {innermost}\n{where}"
        innermost = inner
    return str(innermost)
