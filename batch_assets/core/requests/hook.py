"""Render requests with a pipeline's own code.

An exception that such code raises rejects its row; it never stops a run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from batch_assets.core.answers.parsed_answers import as_text
from batch_assets.core.pipeline.hooks import Params, RowRejected
from batch_assets.core.pipeline.pipeline import Pipeline, RenderRequest
from batch_assets.core.template.batch_rules import refused, refused_value, sampling
from batch_assets.core.template.params_check import check_params
from batch_assets.core.template.template import Template
from batch_assets.core.template.values import RowRejectedError


class RequestHook:
    """Renders rows with a pipeline's `render_request`, which receives what the template gives.

    Args:
        pipeline: The pipeline.
        hook: Its `render_request`.
        template: The template of its params, compiled for the dataset.
    """

    def __init__(self, pipeline: Pipeline, hook: RenderRequest, template: Template) -> None:
        self._pipeline, self._hook, self._template = pipeline, hook, template

    def render(self, row: Mapping[str, Any], present: Collection[str] | None = None) -> bytes:
        """Return the params of one row as JSON bytes.

        Args:
            row: The values of all columns of the dataset.
            present: See `Template.render`.

        Raises:
            RowRejectedError: When the row cannot become a request, or the hook rejects it.
        """
        rendered = self._template.render({name: row[name] for name in self._template.columns}, present)
        try:
            returned = self._hook(self._pipeline, dict(row), orjson.loads(rendered))
        except RowRejectedError:
            raise
        except Exception as error:  # a pipeline's own code may raise anything
            raise RowRejected(as_text(error)) from None
        if returned is None:
            raise RowRejected("render_request returned None for this row")
        if not isinstance(returned, dict):
            raise RowRejected(f"render_request returned a {type(returned).__name__}: return the params or None")
        try:
            # Only values that JSON has: any other might be written differently by another process.
            params = orjson.dumps(returned)
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
