"""A submission whose index and request files are written, before the ledger knows it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from batch_assets.core.io.names import SubmissionId
from batch_assets.core.ledger import Lease
from batch_assets.core.ledger.records import SubmissionEntry
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.ledger.submissions import Registration
from batch_assets.core.requests.enough import Enough, HeldForMore
from batch_assets.core.requests.piloting import NO_PILOT, BuiltPilot, Piloting
from batch_assets.core.requests.prompt_caching import PromptCaching
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.requests.selection import Chosen
from batch_assets.core.store.manifest import Gathered, Manifest, PartEntry, PilotEntry
from batch_assets.core.store.part_writer import PartWriters


@dataclass
class BuiltSubmission:
    """A submission whose index and request files are written. The ledger does not know it yet.

    Attributes:
        manifest: Its manifest, without the time, the files and the submissions that are registered with it.
        lease: Ensures that no other process builds requests of the partition.
        report: The report of its build.
        chosen: What its selection has found.
        parts: Its own request files.
        pilot_parts: Its own request files that are, or may be, those of a pilot.
        prompt: The digest of its prompt.
        pilot: What its build has done about a pilot.
        caching: The stubs and breakpoints of what is registered with it; `None` without `cache: auto`.
        enough: When its requests are enough to be sent; `None` if any number is.
        for_more: How its requests are held for more, once that is decided; `None` if they are not.
        piloting: What it has to do with the pilot of its prompt, once that is decided.
        shared: The files in its folder that have requests of other submissions too.
        shared_pilot: Those of `shared` that are of a pilot.
        waits: Ids of the files of others that have requests of it.
        holds: The other submissions with requests in its files, by id.
    """

    manifest: Manifest
    lease: Lease
    report: RequestsReport
    chosen: Chosen
    parts: PartWriters
    pilot_parts: PartWriters
    prompt: str
    pilot: BuiltPilot
    caching: PromptCaching | None
    enough: Enough | None
    for_more: HeldForMore | None = None
    piloting: Piloting = NO_PILOT
    shared: list[PartEntry] = field(default_factory=list)
    shared_pilot: list[PartEntry] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    holds: dict[str, Gathered] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.manifest.submission

    @property
    def partition(self) -> str:
        return self.manifest.partition

    @property
    def files(self) -> list[PartEntry]:
        """All files in its folder, in the order of their names."""
        written = [*self.parts.written, *self.pilot_parts.written, *self.shared]
        entries = sorted(written, key=lambda entry: entry.part)
        entries = [entry.model_copy(update={"hold": self._hold_of(entry)}) for entry in entries]
        if (caching := self.caching) is None:
            return entries
        of_all = self.manifest.headers
        return [
            caching.with_breakpoint(each, of_all if each.headers is None else each.headers) for each in entries
        ]

    def _hold_of(self, entry: PartEntry) -> str | None:
        """Return what holds a file. The pilot goes first, and before it the stubs that it waits for."""
        file_id, new = self.file_id(entry), self.piloting.file_ids
        hold = self.piloting.hold
        if file_id in new or (new and file_id in self._stubs):
            hold = None
        if self.report.why_held is not None:
            hold = HoldReason.CONFIRM
        if hold is None and self.for_more is not None:
            hold = HoldReason.MORE
        return hold.value if hold is not None else None

    @property
    def _stubs(self) -> Collection[str]:
        return self.caching.stubs if self.caching is not None else ()

    def file_id(self, entry: PartEntry) -> str:
        """Return the id that a file in its folder has in the ledger."""
        return str(SubmissionId(self.id).file(entry.part))

    @property
    def pilot_files(self) -> list[PartEntry]:
        """The files in its folder that are those of a pilot."""
        return [*self.pilot_parts.written, *self.shared_pilot]

    @property
    def has_rest(self) -> bool:
        """Whether it has files that are not those of a pilot."""
        first = {*self._stubs, *map(self.file_id, self.pilot_files)}
        return any(self.file_id(entry) not in first for entry in [*self.parts.written, *self.shared])

    @property
    def pilot_entry(self) -> PilotEntry | None:
        """The pilot that its files wait for, for the manifest."""
        if self.piloting is NO_PILOT:
            return None
        new = self.piloting
        terms = new.terms or self.pilot.terms
        if not any(self.file_id(entry) in new.file_ids for entry in self.pilot_files):
            return PilotEntry(prompt=self.prompt)
        assert terms is not None, "a pipeline that takes a pilot has terms"
        return PilotEntry(
            prompt=self.prompt,
            files=[*new.file_ids],
            asks=terms.asks,
            max_failed=terms.max_failed,
            max_invalid=terms.max_invalid,
            low=new.low,
            high=new.high,
        )

    @property
    def as_gathered(self) -> Gathered:
        """Its name for the manifests of others."""
        return Gathered(partition=self.partition, submission=self.id)

    def registration(self) -> Registration:
        """Return what the ledger records of it."""
        manifest, report = self.manifest, self.report
        entry = SubmissionEntry(
            id=self.id,
            pipeline=manifest.pipeline,
            partition=self.partition,
            rows=report.rows,
            rejected=report.rejected,
            requests=report.requests,
            written=report.written,
            headers=manifest.headers,
            max_attempts=manifest.max_attempts,
            follow_ups=manifest.follow_ups.as_text() if manifest.follow_ups is not None else None,
            max_requests=manifest.max_requests,
            max_bytes=manifest.max_bytes,
            fresh_after=manifest.fresh_after,
            left_out=report.left_out,
            estimate=report.estimate.as_json(self.prompt) if report.estimate is not None else None,
            pilot=self.prompt if self.piloting is not NO_PILOT else None,
        )
        submission_id = SubmissionId(self.id)
        files = [part.ledger_entry(submission_id, manifest.pipeline, self.partition) for part in self.files]
        why_held = report.why_held or self.piloting.why
        if why_held:
            files = [replace(file, why_held=why_held) for file in files]
        if (held := self.for_more) is not None:
            files = [
                replace(file, why_held=held.why, not_before=held.until) if file.hold is HoldReason.MORE else file
                for file in files
            ]
        joined = self.caching.joined if self.caching is not None and report.written else []
        return Registration(entry, files, [*dict.fromkeys([*self.chosen.waited_on, *self.waits, *joined])])
