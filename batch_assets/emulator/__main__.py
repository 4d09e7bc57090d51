"""`python -m batch_assets.emulator`: the emulator from the command line."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from .serving import run_server


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and serve until stopped."""
    parser = argparse.ArgumentParser(prog="batch_assets.emulator", description="Emulated Message Batches API")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free port")
    parser.add_argument("--state", type=Path, help="directory for batches; temporary when not given")
    parser.add_argument("--latency", type=float, default=2.0, help="seconds until a batch ends")
    parser.add_argument("--key", action="append", default=[], help="accepted API key; any when not given")
    parser.add_argument(
        "--workspace", action="append", default=[], metavar="KEY=NAME", help="workspace of an API key"
    )
    parser.add_argument("--no-control", action="store_true", help="no control endpoints")
    parser.add_argument("--options-json", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.options_json:  # how the Emulator class hands on every option of run_server
        options = json.loads(chosen.options_json)
        run_server(**options | {"state": Path(options["state"])})
        return
    run_server(
        host=chosen.host,
        port=chosen.port,
        state=chosen.state,
        latency=chosen.latency,
        keys=chosen.key,
        workspaces=dict(pair.split("=", 1) for pair in chosen.workspace),
        control=not chosen.no_control,
    )


if __name__ == "__main__":
    main()
