"""Register submissions whose files are written: their manifests, and the transaction that adds them to the ledger.

Submissions whose requests were gathered in the same request files are registered at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from batch_assets.core.errors import BusyError, LeaseLostError
from batch_assets.core.ledger import Transaction, builds, pilots, submissions
from batch_assets.core.ledger.pilots import Pilot
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import HoldReason
from batch_assets.core.requests.approval import replaces_approved
from batch_assets.core.requests.built_submission import BuiltSubmission
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.piloting import (
    NO_PILOT,
    Piloting,
    PilotNeed,
    current_pilot,
    earlier_pilot,
    new_pilot,
)
from batch_assets.core.root import Root
from batch_assets.core.store.manifest import remove_submission
from batch_assets.core.store.registered_since import LOOKS
from batch_assets.core.store.request_files import StoredRequestFile


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
            if not self._hold():
                self.remove()
                return False
            created_at = self._begin()
            self._hold_for_more(created_at)
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
            each.pilot_parts.drop()
            remove_submission(self._root.storage, self._pipeline, each.partition, each.id)
        if self._is_recorded:
            with self._root.ledger.write(self._pipeline) as tx:
                for each in self._built:
                    builds.end(tx, each.id)

    def _hold(self) -> bool:
        """Decide whether the files are held: all of them, because submissions share files.

        Returns:
            False if they have to be built again, because the pilot that they would wait for is gone.
        """
        piloting = self._piloting()
        if piloting is None:
            return False
        why = self._confirmation.why_held([each.report.estimate for each in self._built])
        if why is not None and self._is_approved():
            why = None
        for each in self._built:
            if each.report.written:
                each.piloting = piloting
            if piloting.hold is HoldReason.CONFIRM:
                why = piloting.why
            each.report.why_held = why if each.report.written else None
            each.report.waits_for_pilot = piloting.why or None if why is None and each.has_rest else None
        return True

    def _hold_for_more(self, now: float) -> None:
        """Hold the files that nothing else holds, if they have too few requests to be sent alone."""
        if (enough := self._built[0].enough) is None:  # all of them have the same
            return
        requests = sum(each.report.written for each in self._built)
        held = enough.held(requests, self._set_aside, now)
        for each in self._built:
            each.for_more = held

    def _piloting(self) -> Piloting | None:
        """Return what the files have to do with the pilot of their prompt; `None` if they must be built again."""
        turns = [each.pilot.turn for each in self._built]
        needs = {turn.need for turn in turns}
        if needs <= {PilotNeed.NONE}:
            return NO_PILOT
        prompt = self._built[0].prompt
        with self._root.ledger.read() as tx:
            canceled = [turn.canceled for turn in turns]
            state = current_pilot(tx, self._pipeline, prompt, self._set_aside, canceled)
        with_files = [each for each in self._built if each.pilot_files]
        if state is not None:
            sent_again = [each.file_id(entry) for each in with_files for entry in each.pilot_files]
            return earlier_pilot(state, sent_again, self._set_aside)
        taking = [each for each in with_files if each.pilot.turn.need is PilotNeed.TAKE]
        if not taking or not any(each.has_rest for each in self._built):
            return None if PilotNeed.WAIT in needs else NO_PILOT
        entries = [(each, entry) for each in taking for entry in each.pilot_files]
        file_ids = [each.file_id(entry) for each, entry in entries]
        ranges = [each.pilot.range for each in self._built if each.pilot.requests]
        requests = sum(entry.requests for _, entry in entries)
        return new_pilot(file_ids, requests, ranges, is_cached=bool(self._built[0].caching))

    def _is_approved(self) -> bool:
        files = [entry for each in self._built for entry in each.files]
        return replaces_approved(
            self._root,
            self._set_aside,
            {each.prompt for each in self._built},
            [each.report.estimate for each in self._built],
            requests=sum(each.report.written for each in self._built),
            size=sum(entry.bytes for entry in files),
        )

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
            values = {"created_at": created_at, "files": files, "pilot": each.pilot_entry}
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
        pilots.look_again(tx, self._pipeline)
        self._record_pilot(tx)
        if any(each.pilot.turn.need is PilotNeed.TAKE for each in self._built):
            pilots.leave_to_user(
                tx, self._pipeline, {id_ for each in self._built for id_ in each.chosen.waited_on}
            )
        for each in self._built:
            builds.end(tx, each.id)
        return True

    def _record_pilot(self, tx: Transaction) -> None:
        for each in self._built:
            entry = each.pilot_entry
            if entry is not None and entry.files is not None:
                pilots.record(tx, Pilot(self._pipeline, entry.prompt, each.id, tuple(entry.files), entry.terms))
                return
