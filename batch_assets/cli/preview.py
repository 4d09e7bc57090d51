"""`batch-assets preview` shows the requests of a few rows as the API would get them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.find_pipeline import find_pipeline
from batch_assets.cli.request_lines import request_lines
from batch_assets.cli.resource_option import settings_of_pipeline
from batch_assets.core.errors import ConfigError, DatasetError
from batch_assets.core.quoting import printable
from batch_assets.core.text import count

if TYPE_CHECKING:
    from batch_assets.core.requests.preview import PreviewedRow, Price

_ROWS = 3


@click.command()
@click.argument("name")
@click.option("--row", metavar="KEY", help="Show the row with this row key, in place of the first three.")
@click.option("--partition", metavar="KEY", default="", help="The partition, for a pipeline with partitions.")
def preview(name: str, row: str | None, partition: str) -> None:
    """Show requests of the pipeline NAME as the API would get them, with their tokens and their cost.

    The command reads the dataset and renders the first three rows. It sends no request and registers nothing. It
    needs no key; with one, or with an emulator, it has the API count the tokens of these prompts, which costs
    nothing. The Base64 of images and documents is shown in part.

    \b
    Examples:
      batch-assets preview review_triage
      batch-assets preview review_triage --row 17
      batch-assets preview review_triage --partition 2026-11-20
    """
    from batch_assets.cli.project import load_dataset_table
    from batch_assets.core.pipeline.faults import with_line
    from batch_assets.core.requests.preview import previewed_rows, price_of
    from batch_assets.core.requests.token_counts import PromptCounter
    from batch_assets.dagster.partitions import check_partition

    assets = find_pipeline(name)
    check_partition(name, assets.partitions, partition)
    pipeline = assets.pipeline
    settings = settings_of_pipeline(pipeline)
    table = load_dataset_table(pipeline, partition)
    shown = 0
    with PromptCounter(settings) as counter:
        try:
            for each in previewed_rows(settings, pipeline, partition, most=_ROWS, row=row, table=table):
                shown += 1
                price = price_of(each, settings, counter) if each.params is not None else None
                for line in _lines(each, price):
                    click.echo(printable(line, lines=True))
        except (ConfigError, DatasetError) as error:
            raise DatasetError(with_line(str(error), pipeline.source, pipeline.project, pipeline.name)) from None
    if not shown:
        click.echo(f"{text.partition_name(name, partition)}: the dataset has no rows")
    if pipeline.config.cache is not None:
        click.echo("`cache` adds `cache_control` to what all requests share when they are sent")


def _lines(row: PreviewedRow, price: Price | None) -> Iterator[str]:
    yield from request_lines(row)
    if price is None:
        return
    tokens = count(price.tokens, "token")
    if price.is_counted:
        yield f"  prompt: {tokens}, as the API counts them"
    else:
        reason = f"; the API could not count them: {price.problem}" if price.problem is not None else ""
        yield f"  prompt: about {tokens}, by its characters{reason}"
    estimate = price.estimate
    if estimate.batch is None:
        yield f"  cost: unknown, {'; '.join(estimate.exclusions)}"
        return
    yield f"  cost: {estimate.batch.as_text}, with an answer of 0 to max_tokens tokens"
    yield from (f"    {note}" for note in estimate.exclusions)
