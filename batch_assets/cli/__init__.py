"""The command line: `batch-assets run | check | preview | plan | approve | status | dashboard | spend | …`.

Each command imports its modules when it is called, so that `--help` and `status` answer at once.
"""

from __future__ import annotations

import atexit
import errno
import gc
import sys
from typing import Any

import click

from batch_assets import __version__
from batch_assets.cli.approve import approve
from batch_assets.cli.cancel import cancel
from batch_assets.cli.check import check
from batch_assets.cli.dashboard import dashboard
from batch_assets.cli.doctor.command import doctor
from batch_assets.cli.emulator import emulator
from batch_assets.cli.erase import erase
from batch_assets.cli.import_answers import import_
from batch_assets.cli.list_batches import list_batches
from batch_assets.cli.move import move
from batch_assets.cli.plan import plan
from batch_assets.cli.preview import preview
from batch_assets.cli.prune import prune
from batch_assets.cli.reconcile_bill import reconcile_bill
from batch_assets.cli.remedies import error_as_text
from batch_assets.cli.rename import rename
from batch_assets.cli.run import run
from batch_assets.cli.spend import spend
from batch_assets.cli.status import status
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.quoting import printable

_HELP = """Turns a dataset into Anthropic Message Batches and brings the answers back as Parquet.

\b
Try a pipeline without an account:
  batch-assets emulator -- batch-assets run NAME
See the requests of some rows, and what a run would send and cost:
  batch-assets preview NAME
  batch-assets plan NAME
Use the real API:
  export ANTHROPIC_API_KEY=…
  batch-assets run NAME
See its progress from another terminal, or in the browser:
  batch-assets status
  batch-assets dashboard

\b
Environment:
  ANTHROPIC_API_KEY      the real API's key
  BATCH_ASSETS_EMULATOR  URL of a running emulator, to use in place of the real API
  BATCH_ASSETS_ROOT      folder or URL that stores data; default data/output, with the emulator data/emulated
  BATCH_ASSETS_LEDGER    SQLAlchemy URL of the ledger; default sqlite:///<root>/ledger.db
"""


_GARBAGE = (50_000, 20, 100)
"""New objects, and collections of the younger generation, after which Python looks for garbage."""


class _Commands(click.Group):
    """A group of commands that reports errors as sentences, not as tracebacks."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # Nearly all objects of a command are modules, classes and functions, which live to its end. By default
        # Python looks for garbage among them so often that it takes a tenth of a run of 100,000 rows.
        gc.set_threshold(*_GARBAGE)
        # As a process ends, it looks once more among all objects. After a run that takes half a second.
        atexit.register(gc.freeze)
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BatchAssetsError as error:
            raise click.ClickException(printable(error_as_text(error), lines=True)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the process that reads the output has ended: click exits quietly
            raise click.ClickException(_system_error(error)) from None
        except Exception as error:
            reason = _database_error(error)
            if reason is None:
                raise
            raise click.ClickException(f"{_ledger_name(ctx)}: {reason}") from None


def _system_error(error: OSError) -> str:
    """Return the operating system's reason, with the path if it names one."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _ledger_name(ctx: click.Context) -> str:
    """Return the name of the ledger that a command works with, without its password."""
    from batch_assets.core.io.database import as_text
    from batch_assets.core.ledger.connection import parse_url
    from batch_assets.core.settings import Settings

    settings = ctx.find_root().obj or Settings.from_env()
    url = parse_url(settings.ledger_url)
    database = url.database if url.get_backend_name() == "sqlite" else as_text(url)
    return f"the ledger's database {database}"


def _database_error(error: Exception) -> str | None:
    """Return the database driver's reason if the error is one of the database, None if not."""
    if (
        "sqlalchemy" not in sys.modules
    ):  # a module that was not imported cannot have raised it; importing takes time
        return None
    from sqlalchemy.exc import DatabaseError, OperationalError

    # Drivers raise DatabaseError itself for errors without a class; its other subclasses are bugs of this program.
    return str(error.orig) if isinstance(error, OperationalError) or type(error) is DatabaseError else None


@click.group(
    "batch-assets",
    cls=_Commands,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="batch-assets")
def main() -> None:
    """Run the command line."""


for _command in (
    run,
    check,
    preview,
    plan,
    approve,
    status,
    dashboard,
    spend,
    reconcile_bill,
    cancel,
    list_batches,
    import_,
    rename,
    move,
    erase,
    prune,
    doctor,
    emulator,
):
    main.add_command(_command)
