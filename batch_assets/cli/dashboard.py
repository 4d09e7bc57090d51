"""`batch-assets dashboard` serves a page that shows all pipelines, and changes nothing."""

from __future__ import annotations

from importlib.util import find_spec

import click

from batch_assets.cli.resource_option import resource_option, settings_of
from batch_assets.core.errors import SettingsError

PORT = 4020
# The packages of the extra that nothing else here needs.
_PACKAGES = ("marimo", "altair", "duckdb")
INSTALL = "pip install 'batch-assets[dashboard]'"


@click.command()
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", show_default=True, help="The address to listen on."
)
@click.option("--port", default=PORT, type=click.IntRange(0, 65535), show_default=True, help="The port.")
@click.option(
    "--token",
    envvar="BATCH_ASSETS_DASHBOARD_TOKEN",
    metavar="TEXT",
    help="Ask for this token. Default: none on this machine, and a new one on any other address.",
)
@resource_option
def dashboard(host: str, port: int, token: str | None, resource: str | None) -> None:
    """Show all pipelines as a page in the browser.

    The page has the progress of all pipelines, batches with their deadlines, what was spent, what failed and why,
    and every row with its prompt, its answer and its history. It changes while you look at it. It only reads the
    root and the ledger, needs no key, and loads nothing from elsewhere. Ctrl-C ends it.

    \b
    Examples:
      batch-assets dashboard
      batch-assets dashboard --port 8080
      batch-assets dashboard --host 0.0.0.0
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the dashboard needs packages that are not installed ({', '.join(missing)}): {INSTALL}"
        )
    from batch_assets.cli.broken_files import BrokenFiles
    from batch_assets.cli.remedies import error_as_text
    from batch_assets.cli.status_errors import errors_of
    from batch_assets.cli.what_next import waits_for
    from batch_assets.core.quoting import printable
    from batch_assets.dashboard.live import Live
    from batch_assets.dashboard.server import bound, is_loopback, new_token, serve
    from batch_assets.dashboard.state import Words

    settings = settings_of(resource, looks_only=True)
    asked = token or (None if is_loopback(host) else new_token())
    live = Live(settings, Words(waits_for, errors_of, error_as_text, BrokenFiles().lines))
    with bound(host, port) as listening:
        query = f"?access_token={asked}" if asked is not None else ""
        name = f"[{host}]" if ":" in host else host
        click.echo(f"Dashboard: http://{name}:{listening.getsockname()[1]}/{query}  (Ctrl-C ends it)")
        click.echo(printable(f"It reads {live.root_name}, and changes nothing."))
        serve(live, listening, asked)
