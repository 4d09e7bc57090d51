"""A pipeline of a lost ledger: its submissions, and its request files with the states that their remains show."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.names import RequestFileId, SubmissionId
from batch_assets.core.ledger.states import FileState
from batch_assets.core.recovery.found_files import FoundPart, FoundResponses, FoundSubmission
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.live_journal import LiveGroupHeader


@dataclass
class LostFile:
    """A request file with the state that its remains show.

    Attributes:
        submission: The submission of the file.
        part: The file on disk.
        digests: S16, shape (n,): the digests of its requests; empty if they are unknown.
        requests: The number of its requests.
        bytes: The size of the HTTP body that it becomes.
        attempt: The attempt of its requests, from 1; 0 as long as it is unknown.
        state: The state for the ledger.
        why: The reason for the state.
        responses: The stored responses to its requests; `None` if there are none.
    """

    submission: FoundSubmission
    part: FoundPart
    digests: Digests
    requests: int
    bytes: int
    attempt: int
    state: FileState
    why: str
    responses: FoundResponses | None = None

    @property
    def file_id(self) -> RequestFileId:
        """The id of the file."""
        return SubmissionId(self.submission.id).file(self.part.name)

    @property
    def id(self) -> str:
        """The id of the file as text, as in the ledger."""
        return str(self.file_id)

    def headers(self) -> dict[str, str] | None:
        """Return the headers of its requests; `None` if they are those of the submission or the file is gone."""
        sets = self.submission.manifest.header_sets
        return self.part.headers(sets) if sets and self.part.exists else None

    @property
    def has_follow_ups(self) -> bool:
        """Whether its requests are follow-ups, as far as the file shows."""
        return self.submission.manifest.follow_ups is not None and self.part.stored.has_follow_ups()

    def steps(self) -> NDArray[np.int32]:
        """Return the number of follow-ups up to each of its requests: int32, shape (n,)."""
        steps = np.zeros(len(self.digests), np.int32)
        if self.submission.manifest.follow_ups is not None and self.part.exists:
            read = self.part.steps()
            steps = read if len(read) == len(steps) else steps
        return steps

    @property
    def most_attempts(self) -> int:
        """The most attempts of a request of its submission, those of its follow-ups included."""
        rules = self.submission.manifest.follow_ups
        chain = 1 + (int(rules.times.sum()) if rules is not None else 0)
        return self.submission.manifest.max_attempts * chain


@dataclass
class LostPipeline:
    """The submissions, request files and responses of one pipeline.

    Attributes:
        submissions: The submissions, oldest first.
        files: The request files in the order in which they were written.
        spare: Responses to requests that no file has (with `None`), or that another batch has answered too (with
            the file of the requests).
        live: Responses of live calls, with the file of their requests.
        live_groups: The headers of live calls whose answers are not stored, by the id of their group.
        waits: The ids of the files that each submission in force, and each refresh, waits for, by its id. Its own
            files are included.
        complete: The ids of submissions in force whose table has the final result of every row.
        problems: The texts about files that are damaged. They prove nothing and stop nothing else.
    """

    submissions: list[FoundSubmission]
    files: list[LostFile] = field(default_factory=list)
    spare: list[tuple[FoundResponses, LostFile | None]] = field(default_factory=list)
    live: list[tuple[FoundResponses, LostFile]] = field(default_factory=list)
    live_groups: dict[str, LiveGroupHeader] = field(default_factory=dict)
    waits: dict[str, set[str]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
