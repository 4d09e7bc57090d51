"""`batch-assets import`: stores answers of a batch that was made elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.resource_option import settings_of_pipeline
from batch_assets.core.quoting import printable
from batch_assets.core.text import about_dollars, count

if TYPE_CHECKING:
    from batch_assets.core.imports.report import ImportReport

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("import")
@click.argument("source", metavar="FILE|BATCH_ID")
@click.option(
    "--pipeline", "name", metavar="NAME", required=True, help="The pipeline whose rows have the answers."
)
@click.option("--partition", metavar="KEY", default="", help="The partition, for a pipeline with partitions.")
@click.option("--requests", metavar="FILE", type=_FILE, help="The batch's requests as JSON Lines.")
@click.option("--by-key", is_flag=True, help="Trust that each custom_id is the key of its row.")
@click.option(
    "--left-out",
    metavar="FILE",
    type=_FILE,
    help="Write each line that is not imported, with the reason, to this CSV file.",
)
def import_(
    source: str, name: str, partition: str, requests: Path | None, by_key: bool, left_out: Path | None
) -> None:
    """Import answers that were paid for elsewhere, so that the pipeline never asks for them again.

    FILE is a file of results as the API returns it, JSON Lines. With BATCH_ID the results are downloaded from the
    API. An answer is imported if its custom_id ends with the digest of a row's request, as those of this project
    do, or if --requests shows that the batch asked for exactly the params of a row. With --by-key it is also
    imported if its custom_id is a row's key and --requests does not show its params: then you vouch for the
    question. Only the model is compared.

    Requests that have an answer keep it, so importing again changes nothing. Lines without an answer, such as
    errored ones, are not imported. The next run of the pipeline sends only what is left.

    \b
    Examples:
      batch-assets import results.jsonl --pipeline review_triage --requests requests.jsonl
      batch-assets import msgbatch_013Zva2CMHLNnXjNJJKqJ2EF --pipeline review_triage
      batch-assets import results.jsonl --pipeline review_triage --by-key --left-out left_out.csv

    \b
    Exit code:
      0    answers were imported, or all of them were there before
      1    nothing was imported; the reason is on standard error
    """
    from batch_assets.cli.find_pipeline import find_pipeline
    from batch_assets.cli.project import load_dataset_table
    from batch_assets.core.imports.report import LeftOut
    from batch_assets.core.imports.run import import_answers
    from batch_assets.core.open_root import open_root
    from batch_assets.dagster.partitions import check_partition

    assets = find_pipeline(name)
    check_partition(name, assets.partitions, partition)
    pipeline = assets.pipeline
    with open_root(settings_of_pipeline(pipeline)) as root:
        table = load_dataset_table(pipeline, partition)
        report = import_answers(
            root,
            pipeline,
            partition,
            source,
            requests=requests,
            by_key=by_key,
            left_out=left_out,
            table=table,
        )
    for line in _lines(report, name, partition):
        click.echo(printable(line))
    if not report.answers and LeftOut.ANSWERED not in report.left_out:
        click.echo("Nothing was imported.", err=True)
        sys.exit(1)


def _lines(report: ImportReport, name: str, partition: str) -> Iterator[str]:
    """Yield what was imported and left out, as sentences."""
    from batch_assets.core.imports.report import LeftOut, MatchedBy
    from batch_assets.core.prices.money import usd

    ways = {
        MatchedBy.DIGEST: "by the digest in its custom_id",
        MatchedBy.PARAMS: "by its params",
        MatchedBy.KEY: "by its row key, which you vouch for",
    }
    yield f"{report.source}: {count(report.lines, 'line')}, compared with {count(report.rows, 'row')}."
    for way, number in report.imported.items():
        yield f"  imported {ways[way]}: {number:,}"
    for reason, number in report.left_out.items():
        examples = ", ".join(report.examples[reason]) + (", …" if number > len(report.examples[reason]) else "")
        yield f"  left out, {reason}: {number:,} ({examples})"
    if LeftOut.KEY_ONLY in report.left_out:
        yield "  Show what was asked with --requests FILE, or vouch for the row keys with --by-key."
    if report.answers:
        cost = about_dollars(usd(report.picodollars))
        unknown = f", and {count(report.unpriced, 'answer')} of unknown cost" if report.unpriced else ""
        yield (
            f"They cost {cost} by the price list{unknown}, paid elsewhere: the table's cost includes that, the "
            "spend of this root does not."
        )
        yield f"To send the rest: batch-assets run {name}{text.partition_option(partition)}"
