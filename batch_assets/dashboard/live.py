"""What all open pages share: the root, and what was read of it last. It is read once for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeVar

from batch_assets.core.errors import BatchAssetsError, DamagedFileError, MissingFileError, NoLedgerError
from batch_assets.core.io.database import as_text
from batch_assets.core.ledger.connection import parse_url
from batch_assets.core.open_root import open_root_to_look
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import SpendReader, SpendReport
from batch_assets.core.store.manifest import Manifest
from batch_assets.dashboard.row_history import Version, versions_of
from batch_assets.dashboard.state import PipelineView, State, Words, read_state
from batch_assets.dashboard.tables import Distribution, Failures, Row, Tables

T = TypeVar("T")
# Seconds between two looks at the ledger, and at the files for what was spent. After one that took long, the pause
# is longer than it by the factor.
_STATE_PAUSE, _SPEND_PAUSE, _PAUSE_FACTOR = 1.5, 10.0, 10.0
# Seconds that a page waits for what was spent.
_PATIENCE = 3.0


@dataclass(frozen=True)
class Look:
    """What a look at the root showed.

    Attributes:
        number: Grows whenever something has changed.
        state: The state; `None` if it could not be read.
        problem: Why it could not be read, and what to do; `None` if it could.
        has_ledger: Whether there is a ledger; if not, nothing has run yet.
        broken: The mistakes of broken pipeline files.
    """

    number: int
    state: State | None
    problem: str | None
    has_ledger: bool
    broken: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the pipelines; none if the root could not be read."""
        return tuple(each.name for each in self.state.pipelines) if self.state is not None else ()


class Live:
    """Reads a root again and again for all pages that are open.

    Args:
        settings: Where root and ledger are.
        words: How to word what comes next.
    """

    def __init__(self, settings: Settings, words: Words) -> None:
        self._settings, self._words = settings, words
        self.root = open_root_to_look(settings)
        self._tables = Tables(self.root)
        self._lock = threading.RLock()
        self._look = Look(0, None, None, True, ())
        self._seen: Look | None = None
        self._look_again_at = 0.0
        self._spend: SpendReport | None = None
        self._spend_of: tuple[object, ...] = ()
        self._spend_again_at = 0.0
        self._spend_is_late = False
        self._reading: threading.Thread | None = None
        self._reader: SpendReader | None = None
        self._kept: dict[tuple[str, str], tuple[object, object]] = {}

    @property
    def root_name(self) -> str:
        """Where the root is."""
        return self._settings.root

    @property
    def ledger_name(self) -> str:
        """Where the ledger is, without its password."""
        url = parse_url(self._settings.ledger_url)
        return str(url.database) if url.get_backend_name() == "sqlite" else as_text(url)

    def look(self) -> Look:
        """Return what the root shows now, or showed a moment ago."""
        with self._lock:
            began = time.monotonic()
            if began >= self._look_again_at:
                look = self._read()
                if self._spend_is_late and self._reading is None and began >= self._spend_again_at:
                    self._seen = None  # the page asks again for what was spent, although nothing else has changed
                if replace(look, state=_without_now(look.state), number=0) != self._seen:
                    self._seen = replace(look, state=_without_now(look.state), number=0)
                    self._look = replace(look, number=self._look.number + 1)
                ended = time.monotonic()
                self._look_again_at = ended + max(_STATE_PAUSE, _PAUSE_FACTOR * (ended - began))
            return self._look

    def _read(self) -> Look:
        broken: tuple[str, ...] = ()
        try:
            broken = tuple(self._words.broken_files())
            if not self.root.ledger.has_current_tables():
                self.root.close()  # opening it again says what to do
            return Look(0, read_state(self.root, self._words), None, True, broken)
        except BatchAssetsError as error:  # the page shows it, and looks again
            self.root.close()
            return Look(0, None, self._words.error(error), not isinstance(error, NoLedgerError), broken)

    def spend(self, look: Look) -> SpendReport | None:
        """Return what was spent when it was last read; `None` before the first time, and while there is no ledger.

        It is read in a thread, because a root whose table was never written has all its response files read once.
        The page gets what is new with a later look.
        """
        with self._lock:
            version = look.state.spend_version if look.state is not None else ()
            self._spend_is_late = False
            if version != self._spend_of:
                if self._reading is None and time.monotonic() >= self._spend_again_at:
                    self._reading = threading.Thread(target=self._read_spend, args=(version,), daemon=True)
                    self._reading.start()
                else:
                    self._spend_is_late = True
            reading = self._reading
        if reading is not None:
            reading.join(_PATIENCE)
        return self._spend

    def _read_spend(self, version: tuple[object, ...]) -> None:
        began, report = time.monotonic(), self._spend
        try:
            self._reader = self._reader or SpendReader(self.root)
            report = self._reader.read()
        except BatchAssetsError:  # the look shows it
            self._reader = None
        finally:
            with self._lock:
                self._reading = None
        with self._lock:
            ended = time.monotonic()
            self._spend, self._spend_of = report, version
            self._spend_again_at = ended + max(_SPEND_PAUSE, _PAUSE_FACTOR * (ended - began))
            if ended - began > _PATIENCE:
                self._seen = None  # the next look is shown again, with what was read

    def failures(self, pipeline: PipelineView) -> Failures:
        """Return why rows have no answer that can be used."""
        return self._once("failures", pipeline, lambda name: self._tables.failures(name))

    def distributions(self, pipeline: PipelineView) -> dict[str, Distribution]:
        """Return how many rows have each value of a typed column, of enums and of columns with few values."""
        return self._once(
            "distributions", pipeline, lambda name: self._tables.distributions(name, self._enums(pipeline))
        )

    def _enums(self, pipeline: PipelineView) -> Collection[str]:
        """Return the columns of enums, by the output schema of the table that was written last."""
        newest = max(pipeline.partitions, key=lambda each: each.joined_at or 0.0).status
        try:
            manifest = Manifest.read(self.root.storage, pipeline.name, newest.partition, newest.submission)
        except (DamagedFileError, MissingFileError):  # the next run says so
            return ()
        return manifest.answers.classes.keys()

    def _once(self, kind: str, pipeline: PipelineView, read: Callable[[str], T]) -> T:
        """Return what was read of a pipeline's tables, and read it again only if one of them has changed."""
        with self._lock:
            known = self._kept.get((kind, pipeline.name))
            if known is None or known[0] != pipeline.version:
                known = self._kept[kind, pipeline.name] = pipeline.version, read(pipeline.name)
        return known[1]  # type: ignore[return-value]  # what `read` returned for this kind

    def search(self, pipeline: str, text: str) -> tuple[list[Row], str | None]:
        """Return rows with a text, see `Tables.search`, or why they cannot be read."""
        try:
            return self._tables.search(pipeline, text.strip()), None
        except BatchAssetsError as error:
            return [], str(error)

    def opened(self, row: Row) -> tuple[Row | None, list[Version], str | None]:
        """Return a row that was found with all its columns, its versions, and why something cannot be read."""
        whole, versions = None, list[Version]()
        try:
            whole = self._tables.row(row)
            versions = self.versions(row.pipeline, row.partition, row.key)
        except BatchAssetsError as error:
            return whole, versions, str(error)
        return whole, versions, None

    def versions(self, pipeline: str, partition: str, key: str | None) -> list[Version]:
        """Return the versions of a row's request, see `versions_of`; none of a row without a key."""
        return versions_of(self.root, self._tables, pipeline, partition, key) if key is not None else []


def _without_now(state: State | None) -> State | None:
    """Return a state without its time. Whole minutes count, for the texts that tell how long something takes."""
    return replace(state, now=state.now // 60) if state is not None else None


_served: list[Live] = []


def serve_from(live: Live) -> None:
    """Set what the pages of this process show."""
    _served[:] = [live]


def served() -> Live:
    """Return what the pages of this process show."""
    return _served[0]
