"""All checks of a deployment."""

from __future__ import annotations

from batch_assets.cli.doctor.api import api_findings
from batch_assets.cli.doctor.finding import Findings, ok, wrong
from batch_assets.cli.doctor.instance import instance_findings
from batch_assets.cli.doctor.ledger import ledger_findings
from batch_assets.cli.doctor.location import Location, load_location
from batch_assets.cli.doctor.root import root_findings
from batch_assets.cli.remedies import error_as_text
from batch_assets.cli.resource_option import settings_of
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.text import count


def findings(resource: str | None, *, write: bool = False) -> Findings:
    """Yield what each check finds, as soon as it is done.

    Args:
        resource: Key of the resource whose root and API are checked; None for those of the environment.
        write: Whether to write the shipped dagster.yaml, if there is none.
    """
    try:
        settings = settings_of(resource)
    except BatchAssetsError as error:
        yield wrong("environment", error_as_text(error))
    else:
        yield from root_findings(settings)
        yield from ledger_findings(settings)
        yield from api_findings(settings)
    location: Location | None = None
    try:
        location = load_location(resource)
        for broken in location.broken:
            yield wrong("definitions", broken)
        if not location.broken:
            yield ok("definitions", f"they load, with {count(location.pipelines, 'pipeline')}")
    except BatchAssetsError as error:
        yield wrong("definitions", str(error))
    yield from instance_findings(location, write=write)
