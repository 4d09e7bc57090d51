"""Find the request files that the submissions of a lost ledger wait for. Each file is looked at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.states import FileState
from batch_assets.core.recovery.found_files import FoundSubmission
from batch_assets.core.recovery.lost_pipeline import LostFile
from batch_assets.core.store.digests import DigestOwners
from batch_assets.core.store.request_index import DIGEST, RequestIndex
from batch_assets.core.store.responses import digest_array


class WaitedOn:
    """The ids of the request files that submissions wait for, as manifests show it.

    Args:
        files: The request files of all submissions of a pipeline.

    Attributes:
        own: Those of each submission, by its id.
        unread: Those that are lost and may have requests of another submission, which was gathered with their own,
            by the id of that other submission.
    """

    def __init__(self, files: Iterable[LostFile]) -> None:
        self.own: dict[str, set[str]] = defaultdict(set)
        self.unread: dict[str, set[str]] = defaultdict(set)
        self._split: dict[str, set[str]] = defaultdict(set)
        for file in files:
            self.own[file.submission.id].add(file.id)
            for whole in (file.id, *map(str, file.file_id.wholes())):
                self._split[whole].add(file.id)
            for other in file.submission.manifest.holds or () if not len(file.digests) else ():
                self.unread[other.submission].add(file.id)

    def in_flight(self, refresh: FoundSubmission) -> set[str]:
        """Return the files in flight when a refresh was built, with the halves that replaced them."""
        return set().union(*(self._split[file_id] for file_id in refresh.manifest.waits or ()))


class Shared:
    """Finds the request files whose requests a submission has too, or from which its answers came.

    Args:
        storage: The root.
        files: The request files of all submissions of a pipeline, with their final states.
    """

    def __init__(self, storage: Storage, files: Sequence[LostFile]) -> None:
        self._storage, self._files = storage, files

    def files_of(self, submission: FoundSubmission) -> set[str]:
        """Return the ids of these files. For a refresh, files that were answered before it do not count.

        Raises:
            DamagedFileError: When the index of the submission cannot be read.
            MissingFileError: When it is missing.
        """
        files, owners = self._of_refresh if submission.fresh_after is not None else self._of_others
        index = RequestIndex(self._storage, submission.pipeline, submission.partition, submission.id)
        shared: set[int] = set()
        for rows in index.slices([DIGEST]):
            shared.update(owners.of(digest_array(rows.column(0).drop_null())).tolist())
        return {files[number].id for number in shared}

    @cached_property
    def _of_refresh(self) -> tuple[list[LostFile], DigestOwners]:
        return self._with_owners(FileState.UNRESOLVED, FileState.SUBMITTED)

    @cached_property
    def _of_others(self) -> tuple[list[LostFile], DigestOwners]:
        # A request in flight comes before an answered one.
        return self._with_owners(FileState.UNRESOLVED, FileState.SUBMITTED, FileState.COLLECTED)

    def _with_owners(self, *states: FileState) -> tuple[list[LostFile], DigestOwners]:
        files = [file for state in states for file in self._files if file.state is state and len(file.digests)]
        return files, DigestOwners([file.digests for file in files])
