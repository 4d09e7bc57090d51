"""A preview: the requests of a few rows as the API gets them. It needs no ledger and sends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.worst_case import parsed_params
from batch_assets.core.requests.estimate import Estimate
from batch_assets.core.requests.estimating import estimate_of
from batch_assets.core.requests.inputs import check_against_dataset
from batch_assets.core.requests.own_answers import OwnAnswers
from batch_assets.core.requests.request_sample import RequestSample
from batch_assets.core.requests.row_renderer import RowRenderer, row_templates
from batch_assets.core.requests.submission import Rejects
from batch_assets.core.requests.token_counts import PromptCounter
from batch_assets.core.requests.token_rates import tokens_by_characters
from batch_assets.core.settings import Settings
from batch_assets.core.store.digests import pack
from batch_assets.core.store.erased import ErasedRecord, ErasedRows
from batch_assets.core.store.key_texts import key_texts
from batch_assets.core.template.row_templates import RowTemplates
from batch_assets.core.text import beginning

_KEYS_SHOWN = 3


@dataclass(frozen=True)
class PreviewedRow:
    """A row as a run would send it.

    Attributes:
        key: The row key as text.
        digest: The digest of the request; b"" if the row is rejected.
        params: The params as JSON; `None` if the row is rejected.
        headers: The headers that change the meaning of the request.
        rejection: The (error type, text) of a rejected row; `None` if it has a request.
    """

    key: str
    digest: bytes
    params: bytes | None
    headers: dict[str, str]
    rejection: tuple[str, str] | None = None


@dataclass(frozen=True)
class Price:
    """The tokens of a prompt and what its request would cost.

    Attributes:
        tokens: The number of tokens of the prompt.
        is_counted: Whether the API has counted them. Otherwise they are estimated by their characters.
        estimate: The cost.
        problem: Why the API has not counted them; `None` if it has, or was not asked.
    """

    tokens: int
    is_counted: bool
    estimate: Estimate
    problem: str | None


def previewed_rows(
    settings: Settings, pipeline: Pipeline, partition: str, *, most: int, row: str | None = None, table: Any = None
) -> Iterator[PreviewedRow]:
    """Yield the first rows of a dataset, or one row, as a first run would send them.

    Erased rows are rejected, as in a run: nothing of them is shown.

    Args:
        settings: Where the root is.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        most: The most rows.
        row: The key of a row to show in place of the first ones, in one of the forms that `key_texts` names.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used, or has no such row.
        ConfigError: When the pipeline does not fit the dataset's columns.
    """
    with Dataset(pipeline, table, partition) as dataset:
        templates = row_templates(pipeline, dataset)
        check_against_dataset(pipeline, dataset, templates)
        yield from rows_of(settings, pipeline, dataset, templates, most=most, row=row)


def rows_of(
    settings: Settings,
    pipeline: Pipeline,
    dataset: Dataset,
    templates: RowTemplates,
    *,
    most: int,
    row: str | None = None,
) -> Iterator[PreviewedRow]:
    """Yield rows of a dataset that is open, and that the templates fit; see `previewed_rows`."""
    renderer = RowRenderer(pipeline, dataset, templates)
    record = ErasedRecord.read(Storage.of(settings), pipeline.name)
    erased = ErasedRows(record, dataset.key, dataset.schema.names)
    left, first_keys = 1 if row is not None else most, list[str]()
    for rows in dataset.rows(list(dict.fromkeys([*erased.reads, *renderer.reads]))):
        keys = _key_texts(rows, dataset.key)
        first_keys += [forms[0] for forms in keys[:_KEYS_SHOWN]]
        positions = [at for at, forms in enumerate(keys) if row is None or row in forms][:left]
        erased.hide(rows)
        shown = rows.at(positions)
        yield from _rendered(renderer, shown, [keys[at][0] for at in positions])
        left -= len(positions)
        if not left:
            return
    if row is not None:
        some = f"; its first keys: {', '.join(map(beginning, first_keys[:_KEYS_SHOWN]))}" if first_keys else ""
        raise DatasetError(f"{dataset.source}: dataset.key: no row has the key {beginning(repr(row))}{some}")


def price_of(row: PreviewedRow, settings: Settings, counter: PromptCounter) -> Price:
    """Return what a request would cost in a batch, by the price list and without looking at earlier answers.

    Args:
        row: The row, which has a request.
        settings: Has the price list.
        counter: Counts the tokens of the prompt, where there is a key or an emulator.
    """
    assert row.params is not None, "a rejected row has no request"
    params, size = parsed_params(row.params), len(row.params)
    counted = counter.count(params, row.headers)
    sample = RequestSample()
    sample.add(pack([row.digest]), [row.params])
    rates = {str(params.get("model")): counted / size} if counted is not None else {}
    none = OwnAnswers.joined([])
    estimate = estimate_of(
        sample, none, settings.prices, lambda digests: np.zeros(len(digests), bool), lambda _: rates
    )
    assert estimate is not None, "the sample has a request"
    tokens = counted if counted is not None else round(tokens_by_characters(params))
    return Price(tokens, counted is not None, estimate, counter.problem)


def _key_texts(rows: Rows, key: str) -> list[list[str]]:
    """Return the texts by which a user may name each row, the one that Python prints first."""
    by_form = key_texts(rows.table.column(key))
    return [[str(form) for form in forms if form is not None] or ["none"] for forms in zip(*by_form, strict=True)]


def _rendered(renderer: RowRenderer, rows: Rows, keys: list[str]) -> Iterator[PreviewedRow]:
    rejects: Rejects = {}
    rendered = {at: (digest, params, number) for at, digest, params, number in renderer.render(rows, rejects)}
    for at, key in enumerate(keys):
        if at in rendered:
            digest, params, number = rendered[at]
            yield PreviewedRow(key, digest, params, renderer.headers.sets[number])
        else:
            yield PreviewedRow(key, b"", None, {}, rejects[at])
