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
    from batch_assets.cli.yaml_files import unreadable_files
    from batch_assets.dagster.broken.reason import innermost

    inner = innermost(error)
    if isinstance(inner, BatchAssetsError):
        return str(inner)
    # Dagster has read them before any code of this project could, and not all of its errors name the file.
    if faults := unreadable_files():
        return "\n".join(map(str, faults))
    hint = "`dg check defs` shows where"
    return f"the project's definitions do not load: {type(inner).__name__}: {inner}\n{hint}"
