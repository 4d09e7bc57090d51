"""`emulator --errors overloaded=0.02,expired=0.01`: the shares of requests that do not succeed."""

from __future__ import annotations

from typing import Any

import click


def shares_by_kind(_context: click.Context, _option: click.Parameter, given: str | None) -> dict[str, float]:
    """Read shares, as in the emulator's `error_mix`. `_error` at the end of a kind may be left out.

    Returns:
        The shares by the full names of their kinds; nothing without the option.

    Raises:
        click.BadParameter: When a kind is unknown or a share is wrong. Says what to write.
    """
    from batch_assets.emulator.outcomes import Mix, kind_named, known_kinds

    shares: dict[str, float] = {}
    for part in given.split(",") if given is not None else ():
        written, _, share = (text.strip() for text in part.partition("="))
        kind = kind_named(written)
        if kind is None:
            raise click.BadParameter(f"{written!r} is not a kind of error; kinds: {known_kinds()}")
        if kind in shares:
            raise click.BadParameter(f"{written} has two shares: leave out one of them")
        try:
            shares[kind] = float(share)
        except ValueError:
            problem = f"give {written} a share of the requests, as in {written}=0.02"
            raise click.BadParameter(problem) from None
        if not 0 <= shares[kind] <= 1:
            raise click.BadParameter(f"the share of {written} is {share}: give a number from 0 to 1")
    try:
        Mix(shares)
    except ValueError as error:
        raise click.BadParameter(str(error).replace("error_mix", "--errors")) from None
    return shares


def faults_of(shares: dict[str, float]) -> list[dict[str, Any]]:
    """Return the fault rules that give requests these errors; none without shares."""
    uploads = {"method": "POST", "path": "/v1/messages/batches"}
    return [{"match": uploads, "action": {"error_mix": shares}}] if shares else []
