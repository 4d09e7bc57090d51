"""Request files that have the requests of several submissions, whose partitions were gathered."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.io.names import PartName, SubmissionId
from batch_assets.core.requests.built_submission import BuiltSubmission
from batch_assets.core.requests.selection import Peers
from batch_assets.core.store.part_writer import LastPart
from batch_assets.core.store.request_lines import body_bytes

# Only requests of the same attempt, headers and refresh are in one file, and a pilot has files of its own.
_Kind = tuple[int, frozenset[tuple[str, str]], float | None, bool]


@dataclass(frozen=True)
class _SharedFile:
    """A request file that is being written.

    Attributes:
        owner: The submission that it began with. It is in the folder of this one.
        last: The file.
    """

    owner: BuiltSubmission
    last: LastPart

    @property
    def id(self) -> str:
        """The id that the file will have in the ledger."""
        return str(SubmissionId(self.owner.id).file(self.last.part.name))

    def has_room_for(self, other: LastPart) -> bool:
        """Whether the requests of another file fit into it."""
        part, manifest = self.last.part, self.owner.manifest
        requests = part.requests + other.part.requests
        size = body_bytes(self.last.most_bytes + other.most_bytes)
        return requests <= manifest.max_requests and size <= manifest.max_bytes


class GatheredFiles:
    """Appends the last request files of submissions to each other, as long as they fit into one batch.

    A file belongs to the submission that it began with. The others wait on it.

    Args:
        peers: Learns which requests are in which file.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._open: dict[_Kind, _SharedFile] = {}

    def add(self, built: BuiltSubmission) -> None:
        """Take over the last files of a submission, whose other files are published.

        An error leaves a file that must not be published: close it.
        """
        submission_id = SubmissionId(built.id)
        for parts, is_pilot in ((built.pilot_parts, True), (built.parts, False)):
            for name, digests in parts.digests:
                self._peers.add(str(submission_id.file(PartName.parse(name))), digests)
            for last in parts.take_last():
                self._add(built, last, is_pilot)

    def _add(self, built: BuiltSubmission, last: LastPart, is_pilot: bool) -> None:
        headers = last.headers if last.headers is not None else built.manifest.headers
        kind = last.attempt, frozenset(headers.items()), built.manifest.fresh_after, is_pilot
        shared = self._open.get(kind)
        if shared is None or not shared.has_room_for(last):
            if shared is not None:
                self._publish(kind)
            shared = self._open[kind] = _SharedFile(built, last)
            self._peers.add(shared.id, last.part.digests)
            return
        try:
            self._peers.add(shared.id, last.part.digests)
            shared.last.part.append(last.part)
        finally:
            last.part.drop()
        shared.owner.holds[built.id] = built.as_gathered
        built.waits.append(shared.id)

    def _publish(self, kind: _Kind) -> None:
        shared = self._open[kind]
        entry = shared.last.publish()
        del self._open[kind]
        shared.owner.shared.append(entry)
        if kind[-1]:
            shared.owner.shared_pilot.append(entry)

    def publish(self) -> None:
        """Publish the files that are still open."""
        for kind in [*self._open]:
            self._publish(kind)

    def close(self) -> None:
        """Drop the files that are still open."""
        while self._open:
            self._open.popitem()[1].last.part.drop()
