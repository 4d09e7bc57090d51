"""`batch-assets status` shows the state of every pipeline, without a call to the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from batch_assets.cli import text
from batch_assets.cli.broken_files import BrokenFiles
from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.quoting import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_assets.cli.status_text import CostTexts
    from batch_assets.core.ledger import Transaction
    from batch_assets.core.planning.snapshot import Snapshot
    from batch_assets.core.root import Root
    from batch_assets.core.settings import Settings

# Lines of the history that are shown, unless the user asks for all.
_NEWEST = 1000


@click.command()
@click.argument("name", required=False)
@click.option("--partition", metavar="KEY", help="Show only this partition of the pipeline NAME.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Show each partition also of pipelines with more than 50, and the whole history.",
)
@click.option(
    "--history", is_flag=True, help="Show the newest 1,000 changes of state of the pipeline NAME, in order."
)
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch, one in each line.")
@resource_option
def status(
    name: str | None,
    partition: str | None,
    everything: bool,
    history: bool,
    watch: bool,
    as_json: bool,
    resource: str | None,
) -> None:
    """Show the state of all pipelines, or of NAME.

    For the newest submission of each partition, the command shows its rows, request files and batches, and what
    it waits for. A pipeline with more than 50 partitions is summed up: how many are in each state, which waits
    longest, and what you have to do. A terminal also shows bars. The command reads the ledger and the files under
    the root. It does not call the API and needs no key. It also names pipeline files that are broken.

    The history has all submissions, request files, batches, and runs that the sensor requested; with --partition,
    those of this partition, and the files and batches that its rows waited on. Its lines are cut to the width of
    the terminal, and complete in a pipe. If there are more than 1,000, the older ones are
    shown with --all.

    \b
    Examples:
      batch-assets status
      batch-assets status --watch
      batch-assets status --json | jq .summary
      batch-assets status review_triage
      batch-assets status daily_reviews --partition 2026-01-31
      batch-assets status review_triage --history | less
    """
    if history and name is None:
        raise click.UsageError("--history needs a pipeline: batch-assets status NAME --history")
    if partition is not None and name is None:
        raise click.UsageError("--partition needs a pipeline: batch-assets status NAME --partition KEY")
    if history and (watch or as_json):
        raise click.UsageError("--history is neither watched nor printed as JSON: leave --watch and --json out")
    from batch_assets.core.open_root import open_root

    settings = settings_of(resource, looks_only=True)
    with open_root(settings) as root:
        looking = _Looking(settings, root, name, partition, everything, resource)
        if history and name is not None:
            if looking.has_ledger():
                _show_history(looking, name)
            else:
                click.echo("\n".join(looking.lines()))
        elif watch:
            from batch_assets.cli.watching import watch as keep_showing

            keep_showing(looking.json_line if as_json else looking.lines_or_error)
        elif as_json:
            import json

            click.echo(json.dumps(looking.document(), indent=2))
        else:
            click.echo("\n".join(looking.lines()))


@dataclass
class _Looking:
    """What the user asked to see.

    Attributes:
        settings: Where root and ledger are.
        root: The root. It connects to nothing before the ledger exists.
        name: The pipeline; None for all.
        partition: The partition; None for all.
        everything: Show each partition also of pipelines with many.
        resource: The resource that the user named.
    """

    settings: Settings
    root: Root
    name: str | None
    partition: str | None
    everything: bool
    resource: str | None
    _broken: BrokenFiles = field(default_factory=BrokenFiles)
    _costs: CostTexts | None = None

    def lines(self) -> Sequence[str]:
        """Read the state, and return it as lines of text."""
        from batch_assets.cli.ledger_view import no_ledger

        if not self.has_ledger():
            return [*no_ledger(self.settings).splitlines(), *self._broken_lines()]
        with self.root.ledger.read() as tx:
            return list(self._text(tx))

    def lines_or_error(self) -> Sequence[str]:
        """Return the lines, or what is wrong: a ledger that is locked now may be free at the next look."""
        from batch_assets.cli.remedies import error_as_text
        from batch_assets.core.errors import BatchAssetsError

        try:
            return self.lines()
        except BatchAssetsError as error:
            return printable(error_as_text(error), lines=True).splitlines()

    def document(self) -> dict[str, Any]:
        """Read the state, and return it as a document."""
        from batch_assets.cli.ledger_view import ledger_name
        from batch_assets.cli.permissions import permission_problems
        from batch_assets.cli.status_json import status_document

        notes: dict[str, Any] = {"root": self.settings.root, "ledger": None, "budgets": [], "permissions": []}
        notes["broken_files"] = self._broken.lines()
        if not self.has_ledger():
            return status_document(None, [], notes, everything=self.everything)
        notes |= {"ledger": ledger_name(self.settings), "permissions": list(permission_problems(self.settings))}
        with self.root.ledger.read() as tx:
            notes["budgets"] = self._near_caps(tx)
            return status_document(tx, self._snapshots(tx), notes, everything=self.everything)

    def json_line(self) -> Sequence[str]:
        """Read the state, and return it as one line of JSON."""
        import json

        return [json.dumps(self.document())]

    def has_ledger(self) -> bool:
        """Whether there is a ledger, or a lost one to rebuild. A command that looks creates none."""
        from batch_assets.core.recovery.rebuild import has_ledger

        return has_ledger(self.settings)

    def _text(self, tx: Transaction) -> Iterator[str]:
        from batch_assets.cli.ledger_view import locations
        from batch_assets.cli.permissions import permission_problems
        from batch_assets.cli.status_text import CostTexts, status_lines

        self._costs = self._costs or CostTexts(self.root)
        yield locations(self.settings)
        yield from (f"permissions: {problem}" for problem in permission_problems(self.settings))
        yield from (printable(f"budget: {near}") for near in self._near_caps(tx))
        yield from self._broken_lines()
        snapshots = self._snapshots(tx)
        yield from status_lines(
            tx, snapshots, self._costs, everything=self.everything, is_named=self.name is not None
        )
        if not snapshots:
            yield self.nothing(tx)

    def nothing(self, tx: Transaction) -> str:
        """Return the sentence that there is no run of what the user named."""
        if self.name is None:
            return "No run is recorded."
        of = text.partition_name(self.name, self.partition or "")
        return f"No run of {of} is recorded{self._meant(tx)}{text.resource_hint(self.resource)}."

    def _meant(self, tx: Transaction) -> str:
        """Return which pipeline or partition with a run was probably meant; "" if none is like the name."""
        from batch_assets.core.ledger import submissions
        from batch_assets.core.text import meant

        newest, name = submissions.all_newest(tx), self.name or ""
        partitions = [submission.partition for submission in newest if submission.pipeline == name]
        if partitions:
            return meant(self.partition or "", partitions)
        return meant(name, {submission.pipeline for submission in newest})

    def _broken_lines(self) -> Iterator[str]:
        return (printable(f"broken file: {line}") for line in self._broken.lines())

    def _snapshots(self, tx: Transaction) -> list[Snapshot]:
        from batch_assets.core.ledger import submissions
        from batch_assets.core.planning.snapshot import read_snapshots

        if self.name is not None and self.partition is not None:
            newest = submissions.newest(tx, self.name, self.partition)
            return list(read_snapshots(tx, [newest] if newest is not None else []).values())
        return list(read_snapshots(tx, submissions.all_newest(tx, self.name)).values())

    def _near_caps(self, tx: Transaction) -> list[str]:
        from batch_assets.core.ledger import budgets
        from batch_assets.core.ledger.near_caps import near_caps

        recorded = budgets.recorded(tx) | {budgets.ROOT: self.settings.budget}
        names = (budgets.ROOT, self.name) if self.name is not None else tuple(recorded)
        return [str(near) for near in near_caps(tx, {each: recorded.get(each) for each in names})]


def _show_history(looking: _Looking, name: str) -> None:
    import shutil
    import sys

    from batch_assets.cli.history import history_lines
    from batch_assets.core.ledger.transitions import newest_of_pipeline, of_pipeline
    from batch_assets.core.quoting import shell_quoted

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    partition, everything = looking.partition, looking.everything
    with looking.root.ledger.read() as tx:
        if everything:
            transitions = of_pipeline(tx, name, partition)
        else:
            transitions = newest_of_pipeline(tx, name, _NEWEST + 1, partition)
        nothing = looking.nothing(tx) if not transitions else None
    is_cut = not everything and len(transitions) > _NEWEST
    for line in history_lines(transitions[-_NEWEST:] if is_cut else transitions, width):
        click.echo(line)
    if is_cut:
        more = f"batch-assets status {shell_quoted(name)}{text.partition_option(partition or '')} --history --all"
        click.echo(f"These are the newest {_NEWEST:,} lines. For all of them: {more}", err=True)
    if nothing is not None:
        click.echo(nothing)
