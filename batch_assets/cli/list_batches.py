"""`batch-assets list` lists the workspace's batches, as the API reports them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.quoting import printable
from batch_assets.core.text import count, counts, exact_moment

if TYPE_CHECKING:
    from batch_assets.core.api.objects import BatchObject
    from batch_assets.core.ledger.records import Batch
    from batch_assets.core.root import Root


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after the newest N.")
@resource_option
def list_batches(limit: int | None, resource: str | None) -> None:
    """List the batches of the workspace, newest first.

    The list has all batches, as the API reports them. Batches of this root are shown with their pipeline and
    request file.

    \b
    Examples:
      batch-assets list
      batch-assets list --limit 20
    """
    from batch_assets.cli.broken_files import BrokenFiles
    from batch_assets.cli.emulated_root import with_api
    from batch_assets.core.api.errors import ApiError
    from batch_assets.core.open_root import open_root

    with with_api(settings_of(resource)) as settings, open_root(settings) as root:
        base_url = settings.require_endpoint()
        owners = _owners(root)
        total = of_root = 0
        try:
            for batch in islice(root.api.batches_back_to(None), limit):
                total += 1
                of_root += batch.id in owners
                click.echo(_line(batch, owners.get(batch.id, "not of this root")))
        except ApiError as error:
            raise BatchAssetsError(f"{base_url} does not list its batches: {error}") from None
    click.echo(f"{count(total, 'batch', 'batches')} at {base_url}, {of_root} of this root")
    for line in BrokenFiles().lines():
        click.echo(printable(f"broken file: {line}"), err=True)


def _line(batch: BatchObject, owner: str) -> str:
    created = exact_moment(batch.created_at)
    return f"{batch.id}  {created}  {batch.processing_status:<11}  {counts(batch.request_counts)}  {owner}"


def _owners(root: Root) -> dict[str, str]:
    """Map batch id to pipeline and request file, for every batch in the ledger."""
    from batch_assets.core.ledger import batches
    from batch_assets.core.ledger.states import BATCHES_STORED, BATCHES_UNCOLLECTED
    from batch_assets.core.recovery.rebuild import has_ledger

    if not has_ledger(root.settings):
        return {}
    with root.ledger.read() as tx:
        ledger_batches = batches.in_state(tx, *BATCHES_UNCOLLECTED, *BATCHES_STORED)
    return dict(_described(ledger_batches))


def _described(ledger_batches: list[Batch]) -> Iterator[tuple[str, str]]:
    for batch in ledger_batches:
        if batch.file_id is not None:
            yield batch.id, f"{batch.pipeline}  {batch.file_id}" + ("  PAID TWICE" if batch.paid_twice else "")
