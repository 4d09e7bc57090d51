"""`batch-assets plan` shows what a run would send and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.find_pipeline import find_pipeline
from batch_assets.cli.resource_option import settings_of_pipeline
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.quoting import printable
from batch_assets.core.text import count, size

if TYPE_CHECKING:
    from batch_assets.core.requests.estimate import Estimate
    from batch_assets.core.requests.plan import Plan


@click.command()
@click.argument("name")
@click.option("--partition", metavar="KEY", default="", help="The partition, for a pipeline with partitions.")
@click.option("--retry-failed", is_flag=True, help="Plan a run with this option.")
@click.option("--refresh", is_flag=True, help="Plan a run with this option.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Plan a run with this option.")
def plan(name: str, partition: str, retry_failed: bool, refresh: bool, limit: int | None) -> None:
    """Show what a run of the pipeline NAME would send, and what it would cost.

    The command reads the dataset as a run does. It makes no batch, registers nothing and needs no key. With one
    it sends up to 100 prompts to have their tokens counted, if no stored answer shows them, which costs nothing.

    \b
    Examples:
      batch-assets plan review_triage
      batch-assets plan review_triage --partition 2026-11-20
      batch-assets plan review_triage --limit 50
    """
    from batch_assets.cli.project import load_dataset_table
    from batch_assets.core.open_root import open_root
    from batch_assets.core.requests.plan import plan_requests
    from batch_assets.core.requests.report import AskAgain
    from batch_assets.dagster.partitions import check_partition

    assets = find_pipeline(name)
    check_partition(name, assets.partitions, partition)
    pipeline, again = assets.pipeline, AskAgain(retry_failed, refresh, limit)
    with open_root(settings_of_pipeline(pipeline)) as root:
        table = load_dataset_table(pipeline, partition)
        planned = plan_requests(root, pipeline, partition, again, table=table)
    for line in plan_lines(name, partition, planned):
        click.echo(printable(line))


def plan_lines(name: str, partition: str, planned: Plan) -> Iterator[str]:
    """Yield the lines that show a plan."""
    report = planned.report
    yield f"{text.partition_name(name, partition)}: {count(report.rows, 'row')}"
    yield _line(ResultType.REJECTED, report.rejected)
    yield _line("requests", report.requests, "distinct")
    yield _line("reused", report.reused, "answered, or given up")
    yield _line("in flight", report.in_flight)
    batches = count(planned.batches, "batch", "batches")
    yield _line("to send", report.written, f"in {batches}, {size(report.bytes)}" if report.written else "")
    if report.left_out:
        yield _line("left out", report.left_out, "by the limit")
    yield from estimate_lines("cost", planned.estimate)
    yield from estimate_lines("cost of the rest", report.rest)
    for warning in planned.warnings:
        yield f"  warning: {warning}"


def estimate_lines(label: str, estimate: Estimate | None) -> Iterator[str]:
    """Yield the lines that show an estimate; none without one."""
    if estimate is None:
        return
    yield f"  {label}: {estimate.batch.as_text if estimate.batch is not None else 'unknown'}"
    if estimate.batch is not None:
        yield f"    {estimate.basis}"
    if estimate.live is not None:
        yield f"    as live calls: {estimate.live.as_text}"
    if estimate.cached is not None:
        yield f"    with the shared prefix cached: {estimate.cached.as_text}"
    for note in estimate.exclusions:
        yield f"    {note}"


def _line(label: str, number: int, note: str = "") -> str:
    return f"  {label:<14}{number:>14,}  {note}".rstrip()
