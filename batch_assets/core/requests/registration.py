"""Register submissions whose files are written: their manifests, and the transaction that adds them to the ledger.

Submissions whose requests were gathered in the same request files are registered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from batch_assets.core.errors import BusyError, LeaseLostError
from batch_assets.core.io.names import SubmissionId
from batch_assets.core.ledger import Lease, Transaction, builds, submissions
from batch_assets.core.ledger.records import RequestFile, SubmissionEntry
from batch_assets.core.ledger.states import FileState, HoldReason
from batch_assets.core.ledger.submissions import Registration
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.estimate import RecordedEstimate
from batch_assets.core.requests.prompt_caching import PromptCaching
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.requests.selection import Chosen
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import Gathered, Manifest, PartEntry, remove_submission
from batch_assets.core.store.part_writer import PartWriters
from batch_assets.core.store.registered_since import LOOKS
from batch_assets.core.store.request_files import StoredRequestFile


@dataclass
class BuiltSubmission:
    """A submission whose index and request files are written. The ledger does not know it yet.

    Attributes:
        manifest: Its manifest, without the time, the files and the submissions that are registered with it.
        lease: Ensures that no other process builds requests of the partition.
        report: The report of its build.
        chosen: What its selection has found.
        parts: Its own request files.
        prompt: The digest of its prompt.
        caching: The stubs and breakpoints of what is registered with it; `None` without `cache: auto`.
        shared: The files in its folder that have requests of other submissions too.
        waits: Ids of the files of others that have requests of it.
        holds: The other submissions with requests in its files, by id.
    """

    manifest: Manifest
    lease: Lease
    report: RequestsReport
    chosen: Chosen
    parts: PartWriters
    prompt: str
    caching: PromptCaching | None = None
    shared: list[PartEntry] = field(default_factory=list)
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
        entries = sorted([*self.parts.written, *self.shared], key=lambda entry: entry.part)
        if self.report.why_held is not None:
            entries = [entry.model_copy(update={"hold": HoldReason.CONFIRM.value}) for entry in entries]
        if (caching := self.caching) is None:
            return entries
        of_all = self.manifest.headers
        return [
            caching.with_breakpoint(each, of_all if each.headers is None else each.headers) for each in entries
        ]

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
        )
        submission_id = SubmissionId(self.id)
        files = [part.ledger_entry(submission_id, manifest.pipeline, self.partition) for part in self.files]
        if report.why_held is not None:
            files = [replace(file, why_held=report.why_held) for file in files]
        return Registration(entry, files, [*self.chosen.waited_on, *self.waits])


def wait_for_stubs(built: Sequence[BuiltSubmission]) -> None:
    """Let submissions with requests in files also wait on the stubs that others have for these files."""
    by_id = {each.id: each for each in built}
    for each in built:
        if each.caching is None or not each.report.written:
            continue
        for file_id, owner in each.caching.stubs.items():
            if owner != each.id:
                each.waits.append(file_id)
                by_id[owner].holds[each.id] = each.as_gathered


class Registrar:
    """Registers submissions of one pipeline at once, or removes them.

    A manifest has the time at which this began. Until the end, the submissions are compared with what others
    register. So if two submissions share requests, the one that waits on the other's has the newer manifest.

    Args:
        root: The root.
        built: The submissions, of a partition each. Those with request files come first.
        confirmation: Decides whether their files are held.

    Attributes:
        wanted: The ids of files that others registered meanwhile, with requests that rows want.
    """

    def __init__(self, root: Root, built: Sequence[BuiltSubmission], confirmation: Confirmation) -> None:
        self._root, self._built, self._confirmation = root, built, confirmation
        self._pipeline = built[0].manifest.pipeline
        self._is_recorded = False

    @property
    def wanted(self) -> set[str]:
        return {file_id for each in self._built for file_id in each.chosen.since.wanted}

    def register(self) -> bool:
        """Write the manifests, which complete what was written, and register the submissions in the ledger.

        Returns:
            Whether they were registered. They are removed if files that counted as unsent were sent meanwhile, or
            if others have registered requests that their rows want.

        Raises:
            BusyError: When others registered request files during each look.
            LeaseLostError: When another process has taken over. What was written is removed.
        """
        try:
            self._hold()
            created_at = self._begin()
            self._write_manifests(created_at)
            for _ in range(LOOKS):
                is_registered = self._try_register()
                if is_registered is not None:
                    if is_registered:
                        self._remove_leftovers()
                        self._count()
                        if (caching := self._built[0].caching) is not None:  # all of them have the same
                            caching.warn()
                    else:
                        self.remove()
                    return is_registered
        except LeaseLostError:
            self.remove()
            raise
        self.remove()
        raise BusyError(
            f"other builds of {self._pipeline} registered request files during all {LOOKS} attempts to register "
            "this one: run it again later"
        )

    @property
    def _set_aside(self) -> list[RequestFile]:
        return [*{file.id: file for each in self._built for file in each.chosen.set_aside}.values()]

    def _remove_leftovers(self) -> None:
        """Remove scratch files beside the files that were set aside, which no one sends any more.

        The ledger may be older than a process that sent one and was killed while it wrote the receipt.
        """
        for file in self._set_aside:
            StoredRequestFile.of(self._root.storage, file).remove_leftovers()

    def remove(self) -> None:
        """Remove the submissions, which are not registered. Those with the request files are removed last."""
        for each in reversed(self._built):
            each.parts.drop()
            remove_submission(self._root.storage, self._pipeline, each.partition, each.id)
        if self._is_recorded:
            with self._root.ledger.write(self._pipeline) as tx:
                for each in self._built:
                    builds.end(tx, each.id)

    def _hold(self) -> None:
        """Decide whether the files are held: all of them, because submissions share files."""
        why = self._confirmation.why_held([each.report.estimate for each in self._built])
        if why is not None and self._is_approved():
            why = None
        for each in self._built:
            each.report.why_held = why if each.report.written else None

    def _is_approved(self) -> bool:
        """Whether they only replace files with as many requests of the same prompt, which a user let be sent."""
        replaced = self._set_aside
        if any(file.state is not FileState.READY for file in replaced):
            return False
        with self._root.ledger.read() as tx:
            before = submissions.by_ids(tx, sorted({file.submission_id for file in replaced}))
        prompts = {each.prompt for each in self._built}
        estimates = [RecordedEstimate.of(each.estimate) for each in before]
        same = all(estimate is not None and estimate.prompt in prompts for estimate in estimates)
        begun = all(each.began_at is not None for each in before)
        written = sum(each.report.written for each in self._built)
        return same and begun and written <= sum(file.requests for file in replaced)

    def _count(self) -> None:
        estimates = [each.report.estimate for each in self._built if each.report.why_held is None]
        self._confirmation.let_go(estimates)

    def _begin(self) -> float:
        """Record that they are about to be registered.

        Returns:
            The time, by the ledger's clock.
        """
        with self._root.ledger.write(self._pipeline) as tx:
            for each in self._built:
                each.lease.confirm(tx)
                builds.begin(tx, each.id)
            created_at = tx.now
        self._is_recorded = True
        return created_at

    def _write_manifests(self, created_at: float) -> None:
        with_files = [each.as_gathered for each in self._built if each.files]
        for each in self._built:
            files = each.files
            each.report.files = [entry.name for entry in files]
            each.report.bytes = sum(entry.bytes for entry in files)
            values = {"created_at": created_at, "files": files}
            if len(self._built) > 1:
                waits = each.manifest.waits
                values |= {
                    "written": each.report.written,
                    "registered_with": [other for other in with_files if other.submission != each.id],
                    "holds": [*each.holds.values()] or None,
                    "waits": [*waits, *each.waits] if waits is not None else None,
                }
            each.manifest.model_copy(update=values).write(self._root.storage)

    def _try_register(self) -> bool | None:
        """Register them, unless others have registered files since the last look. Then look at these.

        Returns:
            Whether they were registered; `None` if others have registered files, and none has a request that rows
            want.
        """
        new: list[list[RequestFile]] = []
        with self._root.ledger.write(self._pipeline) as tx:
            for each in self._built:
                each.lease.confirm(tx)
                new.append(each.chosen.since.new(tx))
            seq = tx.last_seq()
            if not any(new):
                return self._register(tx)
        is_wanted = False
        for each, files in zip(self._built, new, strict=True):
            if files and each.chosen.since.have(files, each.chosen.desired.contains):
                is_wanted = True
            else:
                each.chosen.since.saw(files, seq)
        return False if is_wanted else None

    def _register(self, tx: Transaction) -> bool:
        if not submissions.register(tx, [each.registration() for each in self._built], self._set_aside):
            return False
        for each in self._built:
            builds.end(tx, each.id)
        return True
