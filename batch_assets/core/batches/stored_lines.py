"""The request lines that responses answer, as far as their request files are there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import batches
from batch_assets.core.ledger import files as ledger_files
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_BYTES, tail_of
from batch_assets.core.store.request_files import StoredRequestFile, is_intact
from batch_assets.core.store.request_lines import own_tail
from batch_assets.core.text import count


@dataclass
class LostTexts:
    """Requests that cannot be sent again because their text is gone, or would be the same again.

    Attributes:
        requests: The number of these requests.
        problems: A text about each request file that they were in.
        postponed: The number of other requests that the next run sends, because this one had no time for them.
    """

    requests: int = 0
    postponed: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, requests: int, problem: str) -> None:
        """Add requests of a file."""
        self.requests += requests
        self.problems.append(problem)


def file_of(
    root: Root, submission: Submission, responses: ResponseName
) -> tuple[RequestFile | None, dict[str, str] | None]:
    """Return the request file that responses belong to, and its headers unless they are the submission's.

    Returns:
        `None` for the file if the ledger does not know the batch.
    """
    with root.ledger.read() as tx:
        file_id = str(refused) if (refused := responses.refused) is not None else None
        if responses.batch_id is not None:
            batch = batches.by_id(tx, responses.batch_id)
            file_id = batch.file_id if batch is not None else None
        if file_id is None:
            return None, None
        file = ledger_files.by_id(tx, file_id)
        headers = ledger_files.headers_of(tx, file)
    return file, None if headers == json.loads(submission.headers) else headers


class StoredLines:
    """The lines of a request file, which may be gone or damaged, read in order."""

    def __init__(self, root: Root, file: RequestFile) -> None:
        self._root, self._file = root, file
        self._stored = StoredRequestFile.of(root.storage, file)
        self._lines = enumerate(self._stored.lines())
        self._is_gone = False

    def at(self, position: int, digest: bytes, primed: Any) -> bytes | None:
        """Return a line, which must come after those returned before; `None` if it is not there, or not intact.

        Args:
            position: Its position in the file.
            digest: The digest of the request that its chain began with.
            primed: The hash of its headers, see `digester`.
        """
        try:
            line = next((line for number, line in self._lines if number == position), None)
        except FileNotFoundError:
            self._is_gone, self._lines = True, enumerate(iter(()))
            return None
        is_it = line is not None and own_tail(line) == tail_of(digest.ljust(DIGEST_BYTES, b"\0"))
        return line if is_it and line is not None and is_intact(line, primed) else None

    def problem(self, requests: int, *, answered: bool = False) -> str:
        """Return what is wrong and what to do, as text.

        Args:
            requests: The number of requests whose line is not there.
            answered: They have an answer, which is to be followed by another request.
        """
        state = "gone" if self._is_gone else "damaged"
        where = self._root.storage.uri(*self._stored.parts)
        start = f"the request file {self._file.id} is {state} ({where}), and with it the text of "
        if answered:
            return (
                f"{start}{count(requests, 'request')} whose answer is to be asked again. Restore it from a "
                "backup, or leave out the fields of `retry` that ask answers again, and build the requests again"
            )
        return (
            f"{start}{count(requests, 'failed request')} to be retried. Restore it from a backup, or build the "
            "requests again"
        )
