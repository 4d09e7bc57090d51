"""A pipeline's own code: what it makes of a rendered request, and of a message before it becomes columns.

Whatever such code raises is said of its row; it never stops a run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from batch_assets.core.answers.parsed_answers import ParseMessage, in_words
from batch_assets.core.template.batch_rules import refused, refused_value, sampling
from batch_assets.core.template.params_check import check_params
from batch_assets.core.template.values import RowRejectedError

if TYPE_CHECKING:
    from batch_assets.core.pipeline.pipeline import Pipeline

REASON = "render_request"
Row = dict[str, Any]
Params = dict[str, Any]
RenderRequest = Callable[["Pipeline", Row, Params], Params | None]
"""(pipeline, all values of the row, its rendered params) -> the params to send; None rejects the row."""


class RowRejected(RowRejectedError):
    """Raised by `render_request`: the row is rejected, with this message in its `error_message`."""

    def __init__(self, message: str) -> None:
        super().__init__(REASON, message)


@dataclass(frozen=True)
class Hooks:
    """Functions of a pipeline's own, each None where it has none.

    Attributes:
        render_request: changes or rejects rendered requests.
        parse_message: makes typed columns of messages, in the place of JSON answers.
        output_columns: the columns it makes, where `output_schema` does not say.
    """

    render_request: RenderRequest | None = None
    parse_message: ParseMessage | None = None
    output_columns: pa.Schema | None = None


NO_HOOKS = Hooks()


class RequestHook:
    """Renders rows in the place of a pipeline's template, through its `render_request`.

    Args:
        reads: the columns that the template takes.
    """

    def __init__(self, pipeline: Pipeline, hook: RenderRequest, reads: Collection[str]) -> None:
        self._pipeline, self._hook, self._reads = pipeline, hook, reads

    def render(self, row: Mapping[str, Any]) -> bytes:
        """The params of one row as JSON bytes.

        Args:
            row: every column of the dataset.

        Errors:
            RowRejectedError: the row cannot become a request, or the hook does not want it to.
        """
        rendered = self._pipeline.template.render({name: row[name] for name in self._reads})
        try:
            given = self._hook(self._pipeline, dict(row), orjson.loads(rendered))
        except RowRejectedError:
            raise
        except Exception as error:  # whatever a pipeline's own code raises
            raise RowRejected(in_words(error)) from None
        if given is None:
            raise RowRejected("render_request returned None for this row")
        if not isinstance(given, dict):
            raise RowRejected(f"render_request returned a {type(given).__name__}: return the params or None")
        try:
            params = orjson.dumps(given)  # what JSON has not would print another way in another process
        except TypeError as error:
            raise RowRejected(f"what render_request returned has no JSON form: {error}") from None
        if params != rendered:
            self._check(orjson.loads(params))
        return params

    def _check(self, params: Params) -> None:
        config = self._pipeline.config
        also = sampling(config.anthropic_version)
        problem = (
            refused(params, config.anthropic_version)
            or check_params(params, betas=bool(config.betas), also=also, allow_unknown=config.allow_unknown_params)
            or refused_value(params, config.anthropic_version)
        )
        if problem is not None:
            raise RowRejected(": ".join(problem))


def name_of(hook: Callable[..., Any]) -> str:
    """Where a function is found: its module and its name there."""
    name = getattr(hook, "__qualname__", None) or type(hook).__qualname__
    return f"{getattr(hook, '__module__', None) or type(hook).__module__}.{name}"
