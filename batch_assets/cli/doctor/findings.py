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
from batch_assets.core.io.database import error_text
from batch_assets.core.io.option_secrets import without_options
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.settings import Settings
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
        answers = True

        def of_root() -> Findings:
            nonlocal answers
            answers = yield from root_findings(settings)

        yield from to_its_end("root", of_root(), settings)
        yield from to_its_end("ledger", ledger_findings(settings, root_answers=answers), settings)
        yield from to_its_end("endpoint", api_findings(settings, root_answers=answers), settings)
    location: Location | None = None
    try:
        location = load_location(resource)
        for broken in location.broken:
            yield wrong("definitions", broken)
        if not location.broken:
            yield ok("definitions", f"they load, with {count(location.pipelines, 'pipeline')}")
    except BatchAssetsError as error:
        yield wrong("definitions", str(error))
    yield from to_its_end("instance", instance_findings(location, write=write))


def to_its_end(concern: str, found: Findings, settings: Settings | None = None) -> Findings:
    """Yield what checks find. An error that one of them raises is a finding too, so that the next checks are made.

    Args:
        concern: What they check.
        found: Their findings.
        settings: Those of the root and the ledger that they use, for their secrets, which no text repeats.
    """
    try:
        yield from found
    except BatchAssetsError as error:
        yield wrong(concern, error_as_text(error))
    except Exception as error:  # the package of a file system or of a database may raise any
        text = str(error)
        if settings is not None:
            text = without_options(error_text(error, parse_url(settings.ledger_url)), settings.storage_options)
        yield wrong(concern, f"the check ended with an error ({type(error).__name__}: {text})")
