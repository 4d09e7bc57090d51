"""A pipeline's own code for requests: what it makes of a rendered one.

Whatever such code raises is written to its row; it never stops a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from batch_assets.core.answers.parsed_answers import in_words
from batch_assets.core.pipeline.hooks import Params, RowRejected
from batch_assets.core.pipeline.pipeline import Pipeline, RenderRequest
from batch_assets.core.template.batch_rules import refused, refused_value, sampling
from batch_assets.core.template.params_check import check_params
from batch_assets.core.template.template import Template
from batch_assets.core.template.values import RowRejectedError


class RequestHook:
    """Renders rows in the place of a pipeline's template, through its `render_request`.

    Args:
        pipeline: whose code it is.
        hook: its `render_request`.
        template: its params, for the dataset.
    """

    def __init__(self, pipeline: Pipeline, hook: RenderRequest, template: Template) -> None:
        self._pipeline, self._hook, self._template = pipeline, hook, template

    def render(self, row: Mapping[str, Any]) -> bytes:
        """The params of one row as JSON bytes.

        Args:
            row: every column of the dataset.

        Errors:
            RowRejectedError: the row cannot become a request, or the hook does not want it to.
        """
        rendered = self._template.render({name: row[name] for name in self._template.columns})
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
