"""Whether the ledger can be reached, has the tables of this version, and belongs to the root."""

from __future__ import annotations

from batch_assets.cli.doctor.finding import Findings, ok, skipped, wrong
from batch_assets.cli.ledger_view import ledger_name
from batch_assets.cli.remedies import error_as_text
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger import Ledger
from batch_assets.core.ledger.migrations import HEAD
from batch_assets.core.open_root import open_root
from batch_assets.core.recovery.pairing import is_missing_file
from batch_assets.core.recovery.rebuild import was_used
from batch_assets.core.settings import Settings


def ledger_findings(settings: Settings, *, root_answers: bool = True) -> Findings:
    """Check the ledger, and whether it belongs to the root. It is neither created nor upgraded.

    Args:
        settings: Where root and ledger are.
        root_answers: Whether the root may be called.
    """
    name = ledger_name(settings)
    try:
        version = tables_version(settings)
        is_lost = version is None and root_answers and was_used(Storage.of(settings))
    except BatchAssetsError as error:
        yield wrong("ledger", error_as_text(error))
        yield skipped("pairing", "the ledger cannot be opened")
        return
    if version == HEAD and not root_answers:
        yield ok("ledger", f"{name} can be reached, and has the tables of this version")
        yield skipped("pairing", "the root does not answer")
        return
    if version == HEAD:
        yield from _pairing_findings(settings, name)
        return
    if is_lost:
        problem = f"{name} is empty, but the root was used with another ledger"
        yield wrong("ledger", problem, "`batch-assets move` shows that ledger, and fills this one from the files")
    elif version is None:
        yield ok("ledger", f"{name} is new: the first run creates its tables")
    elif version < HEAD:
        problem = f"{name} has tables of version {version}, and this program needs {HEAD}"
        yield wrong(
            "ledger",
            problem,
            "stop all programs of the earlier version; then `batch-assets status` upgrades the ledger",
        )
    else:
        problem = f"{name} has tables of version {version}, and this program knows versions up to {HEAD}"
        yield wrong("ledger", problem, "install the newer batch_assets here")
    yield skipped("pairing", "the ledger cannot be used yet")


def tables_version(settings: Settings) -> str | None:
    """Return the version of the ledger's tables; `None` if there are none.

    Raises:
        BatchAssetsError: When the ledger cannot be reached.
    """
    if is_missing_file(settings.ledger_url):
        return None
    return Ledger.tables_version(settings.ledger_url, shared=settings.shared)


def _pairing_findings(settings: Settings, name: str) -> Findings:
    """Open root and ledger as every command does, and write once."""
    try:
        with open_root(settings) as root:
            mark = root.mark
            with root.ledger.write():
                pass
    except BatchAssetsError as error:
        yield ok("ledger", f"{name} can be reached, and has the tables of this version")
        yield wrong("pairing", error_as_text(error))
        return
    yield ok("ledger", f"{name} can be written, and has the tables of this version")
    yield ok("pairing", f"ledger and root are a pair; the root's mark is {mark}")
