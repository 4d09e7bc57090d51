"""`batch-assets cancel` cancels a pipeline's batches, or single batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from batch_assets.cli import text
from batch_assets.cli.remedies import as_texts
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.quoting import printable
from batch_assets.core.text import count

if TYPE_CHECKING:
    from batch_assets.core.batches.cancel import CancelReport


@click.command()
@click.argument("targets", metavar="NAME|BATCH_ID...", nargs=-1, required=True)
@click.option("--partition", metavar="KEY", help="Cancel only this partition of a pipeline.")
@resource_option
def cancel(targets: tuple[str, ...], partition: str | None, resource: str | None) -> None:
    """Cancel the pipeline NAME, or one or more batches.

    For a pipeline, the command cancels its batches at the API and sends no more of its request files. Answers
    that arrived are kept. All other rows become `canceled`, and the next run of the pipeline sends only those
    again. Repeating the command does no harm.

    With the id of a batch that was deleted at the API before its answers were collected, the command gives
    this batch up: its rows become `canceled` too. That needs a key of the workspace that submitted the batch,
    and proof of it.

    With the id of a batch whose stored answers are lost for good, the command gives them up: only then does the
    next run ask and pay for its requests again.

    \b
    Examples:
      batch-assets cancel review_triage
      batch-assets cancel review_triage --partition 2026-11-20
      batch-assets cancel msgbatch_013Zva2CMHLNnXjNJJKqJ2EF
      batch-assets cancel msgbatch_013Zva2CMHLNnXjNJJKqJ2EF msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d

    \b
    Exit code:
      0    everything that is known to be at the API is canceled
      1    the API refused it, or there is no such pipeline or batch; the reason is on standard error
    """
    from batch_assets.cli.ledger_view import no_ledger
    from batch_assets.core.batches.targets import UnknownTargetError
    from batch_assets.core.cancel import BATCH_ID_START, cancel, cancel_by_ids
    from batch_assets.core.open_root import open_root
    from batch_assets.core.recovery.rebuild import has_ledger

    if len(targets) > 1:
        if partition is not None:
            raise click.UsageError("--partition needs one pipeline, not several batch ids")
        if names := [target for target in targets if not target.startswith(BATCH_ID_START)]:
            raise click.UsageError(f"{names[0]} is not a batch id: cancel pipelines with one command each")
    settings = settings_of(resource)
    if not has_ledger(settings):
        raise click.ClickException(no_ledger(settings))
    with open_root(settings) as root:
        try:
            is_one = len(targets) == 1
            report = cancel(root, targets[0], partition) if is_one else cancel_by_ids(root, targets)
        except UnknownTargetError as error:
            raise UnknownTargetError(f"{error}{text.resource_hint(resource)}", remedy=error.remedy) from None
    for line in cancel_lines(report):
        click.echo(line)
    for problem in [*report.problems, *as_texts(report.remedies)]:
        click.echo(f"problem: {printable(problem)}", err=True)
    sys.exit(1 if report.problems else 0)


def cancel_lines(report: CancelReport) -> Iterator[str]:
    """Yield what a cancel did, one line each. Problems are left out."""
    yield from report.done()
    yield from report.left()
    changes = report.canceled or report.unsent or report.in_doubt or report.given_up or report.submissions
    if (report.answers_given_up or report.disproved) and not changes:
        return
    if not (changes or report.problems):
        yield "Nothing had to be canceled."
        return
    yield (
        f"{count(len(report.canceled), 'batch', 'batches')} canceled, "
        f"{count(len(report.unsent), 'request file')} not sent. The results stage collects the answers that "
        "arrived; the sensor runs it automatically."
    )
