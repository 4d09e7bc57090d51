"""`batch-assets emulator` runs the local Message Batches API, alone or around another command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from batch_assets.cli.error_shares import faults_of, shares_by_kind
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.settings import find_project

PORT = 4010


class EmulatorError(BatchAssetsError):
    """The emulator cannot be started."""


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=PORT,
    type=click.IntRange(0, 65535),
    show_default=True,
    help="Port to listen on. A root belongs to one URL, so keep the port the same.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that stores its batches.  [default: data/emulator]",
)
@click.option(
    "--latency",
    default=2.0,
    type=click.FloatRange(min=0),
    show_default=True,
    metavar="S",
    help="Seconds until a batch ends.",
)
@click.option(
    "--expiry",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Seconds until a batch expires.  [default: 24 hours]",
)
@click.option(
    "--queue-limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of requests that may be in process at once; uploads beyond it are refused with 429.",
)
@click.option(
    "--moving-counters",
    is_flag=True,
    help="Update the request counts while a batch is in progress; the API does not.",
)
@click.option(
    "--errors",
    callback=shares_by_kind,
    metavar="KIND=SHARE,…",
    help="Shares of requests that do not succeed, by kind, such as overloaded=0.02,expired=0.01.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Name by which the emulator may be called, apart from localhost and --host. May be repeated.",
)
@click.option(
    "--answers-from",
    metavar="URL",
    help="Server of a model, such as Ollama, that answers the requests. It is called by OpenAI's chat API, or by "
    "the Messages API if the URL ends in /v1/messages.",
)
@click.option(
    "--answers-model",
    metavar="NAME",
    help="Name of that server's model.  [default: the model of each request]",
)
@click.option(
    "--answers-concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="N",
    help="How many requests that server gets at a time.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def emulator(
    host: str,
    port: int,
    state: Path | None,
    command: tuple[str, ...],
    errors: dict[str, float],
    **options: Any,
) -> None:
    """Emulate the Message Batches API on this machine.

    It needs no account and no key, and costs nothing. Its answers are made up, but they follow each request's
    output schema, and the same request always gets the same answer. With --answers-from, a model of your own
    answers. With a COMMAND after `--`, the emulator runs
    that command with BATCH_ASSETS_EMULATOR set, stops when the command ends, and exits with its exit code.

    \b
    Examples:
      batch-assets emulator
      batch-assets emulator --latency 60
      batch-assets emulator --errors overloaded=0.02,expired=0.01
      batch-assets emulator -- batch-assets run review_triage
      batch-assets emulator --answers-from http://127.0.0.1:11434 --answers-model qwen3:8b
    """
    _check_source(options["answers_from"], options["answers_model"])
    options |= {"host": host, "port": port, "state": state or find_project() / "data" / "emulator"}
    options["faults"] = faults_of(errors)
    if command:
        with running(options) as url:
            sys.exit(_run(command, url))
    from batch_assets.emulator import run_server

    if port:
        click.echo(f"In another terminal: export BATCH_ASSETS_EMULATOR={shell_quoted(_url(host, port))}")
    try:
        run_server(**options)
    except OSError as error:
        raise _cannot_listen(host, port, error.strerror or str(error)) from None


def _check_source(url: str | None, model: str | None) -> None:
    if url is None:
        if model is not None:
            raise click.UsageError("--answers-model needs --answers-from")
        return
    from batch_assets.emulator.answer_source import endpoint_of

    try:
        click.echo(f"Requests are answered by {endpoint_of(url)}")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--answers-from") from None


@contextmanager
def running(options: dict[str, Any]) -> Iterator[str]:
    """Start an emulator in its own process, or use the one that runs at this address, and yield its URL."""
    from batch_assets.emulator import Emulator

    host, port = options["host"], options["port"]
    if port and _answers(_url(host, port)):
        if options.get("answers_from") is not None or options.get("faults"):
            raise EmulatorError(
                f"an emulator is already running at {_url(host, port)}, and may have other answers. Stop it, or "
                "choose another --port and another BATCH_ASSETS_ROOT"
            )
        click.echo(f"An emulator is already running at {_url(host, port)}: using it.")
        yield _url(host, port)
        return
    server = Emulator(**options)
    try:
        server.start()
    except RuntimeError:
        last_line = server.errors().strip().rpartition("\n")[2]
        raise _cannot_listen(host, port, last_line) from None
    try:
        yield server.url
    finally:
        server.stop()


def _run(command: tuple[str, ...], url: str) -> int:
    """Run the command, pass signals on to it, and return its exit code as a shell would."""
    env = {**os.environ, "BATCH_ASSETS_EMULATOR": url}
    try:
        process = subprocess.Popen(command, env=env)
    except OSError as error:
        raise EmulatorError(f"{command[0]}: {error.strerror}") from None
    # The terminal sends Ctrl-C to every process in its foreground, so the command receives it without our help.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return 128 - code if code < 0 else code


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _answers(url: str) -> bool:
    """Return whether an emulator answers at this URL, and not another server."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/_emulator/settings", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _cannot_listen(host: str, port: int, reason: str) -> EmulatorError:
    return EmulatorError(
        f"the emulator cannot listen on {host}:{port}: {reason.rstrip('.')}. Choose another --port"
    )
