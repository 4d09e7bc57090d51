"""Run the emulator from the command line: `python -m batch_assets.emulator`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from batch_assets.emulator.serving import run_server


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and serve until stopped.

    Args:
        arguments: The command line; `None` for that of this process.
    """
    parser = argparse.ArgumentParser(prog="batch_assets.emulator", description="Emulated Message Batches API")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=int, default=4010, help="port to listen on; 0 for any free port")
    parser.add_argument("--state", type=Path, help="directory for batches (default: a temporary one)")
    parser.add_argument("--latency", type=float, default=2.0, help="seconds until a batch ends")
    parser.add_argument("--key", action="append", default=[], help="accepted API key (default: any key)")
    parser.add_argument(
        "--workspace", action="append", default=[], metavar="KEY=NAME", help="workspace of an API key"
    )
    parser.add_argument("--no-control", action="store_true", help="no control endpoints")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="name by which it may be called"
    )
    parser.add_argument("--options-json", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.options_json:  # used by the Emulator class to pass any option of run_server
        options = json.loads(args.options_json)
        run_server(**options | {"state": Path(options["state"])})
        return
    run_server(
        host=args.host,
        port=args.port,
        state=args.state,
        latency=args.latency,
        keys=args.key,
        workspaces=dict(pair.split("=", 1) for pair in args.workspace),
        control=not args.no_control,
        allow_hosts=args.allow_host,
    )


if __name__ == "__main__":
    main()
