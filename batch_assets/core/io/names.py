"""Names under the root that have parts: of submissions, request files and response files."""

from __future__ import annotations

import calendar
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

_ID_TIME = "%Y%m%dT%H%M%S"
_PART = re.compile(r"part-(?P<ordinal>\d{5}|[1-9]\d{5,})(?P<cuts>(?:-[12])*)")
_REQUESTS, _RECEIPT, _RESPONSES, _DIGESTS = ".jsonl", ".batch.json", ".parquet", ".digests"
_RESENT = ".resent.json"
# The start of the name of a response file that has a refusal, not the responses of a batch.
_REFUSED = "refused."
# The start of the name of a response file that has answers from elsewhere.
_IMPORTED = "imported."
# The start of the name of a response file that has the answers of live calls.
_LIVE = "live."

REQUEST_FILES = f"part-*{_REQUESTS}"
"""A pattern that the names of request files match."""
DIGEST_FILES = f"part-*{_DIGESTS}"
"""A pattern that the names of the files with their digests match."""


@dataclass(frozen=True, order=True)
class SubmissionId:
    """The id of a submission, which is also the name of its folder: `20261128T093000-1f2e3d4c`.

    Attributes:
        text: The id.
    """

    text: str

    @classmethod
    def new(cls) -> Self:
        """Make a unique id. Ids sort by the time when they are made."""
        return cls(time.strftime(_ID_TIME, time.gmtime()) + "-" + secrets.token_hex(4))

    @property
    def built_at(self) -> float | None:
        """When the submission was built by our clock, seconds since 1970; None if the id has no time."""
        try:
            return float(calendar.timegm(time.strptime(self.text.partition("-")[0], _ID_TIME)))
        except ValueError:
            return None

    def file(self, part: PartName) -> RequestFileId:
        """Return the id of a request file of the submission."""
        return RequestFileId(self, part)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, order=True)
class PartName:
    """The name of a request file: `part-00003.jsonl`, or `part-00003-1-2.jsonl` once it was cut twice.

    Attributes:
        ordinal: The ordinal of the file in its submission, from 0.
        cuts: For each time that the API refused the file as too large, the half that this one is: 1 or 2.
    """

    ordinal: int
    cuts: tuple[int, ...] = ()

    @classmethod
    def parse(cls, name: str) -> Self:
        """Parse the name of a request file.

        Raises:
            ValueError: When `name` is not the name of a request file.
        """
        if (match := _match(name, _REQUESTS)) is None:
            raise ValueError(f"{name!r} is not the name of a request file")
        return cls._of(match)

    @classmethod
    def of_file(cls, name: str) -> Self | None:
        """Parse the name of a request file or of its receipt; None for any other file."""
        match = _match(name, _REQUESTS) or _match(name, _RECEIPT)
        return None if match is None else cls._of(match)

    @classmethod
    def _of(cls, match: re.Match[str]) -> Self:
        return cls(int(match["ordinal"]), tuple(int(half) for half in match["cuts"].split("-")[1:]))

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return "-".join([f"part-{self.ordinal:05d}", *map(str, self.cuts)])

    @property
    def receipt(self) -> str:
        """The name of the file's receipt."""
        return self.stem + _RECEIPT

    @property
    def resent(self) -> str:
        """The name of the trace of the file's uploads that may have been accepted before it was sent again."""
        return self.stem + _RESENT

    @property
    def digests(self) -> str:
        """The name of the file with the digests of the requests."""
        return self.stem + _DIGESTS

    @property
    def halves(self) -> tuple[PartName, PartName]:
        """The two files that replace this one when the API refuses it as too large."""
        return PartName(self.ordinal, (*self.cuts, 1)), PartName(self.ordinal, (*self.cuts, 2))

    @property
    def whole(self) -> PartName | None:
        """The file that this one is a half of; None if it was never split."""
        return PartName(self.ordinal, self.cuts[:-1]) if self.cuts else None

    def __str__(self) -> str:
        return self.stem + _REQUESTS


@dataclass(frozen=True, order=True)
class RequestFileId:
    """The id of a request file in the ledger: `<submission>/<name>`."""

    submission: SubmissionId
    part: PartName

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the id of a request file.

        Raises:
            ValueError: When `text` is not the id of a request file.
        """
        submission, _, name = text.rpartition("/")
        return cls(SubmissionId(submission), PartName.parse(name))

    @property
    def halves(self) -> tuple[RequestFileId, RequestFileId]:
        """The two files that replace this one when the API refuses it as too large."""
        first, second = self.part.halves
        return self.submission.file(first), self.submission.file(second)

    @property
    def whole(self) -> RequestFileId | None:
        """The file that this one is a half of; None if it was never split."""
        whole = self.part.whole
        return None if whole is None else self.submission.file(whole)

    def wholes(self) -> Iterator[RequestFileId]:
        """Yield the files that this one was split from, from its own half upward."""
        whole = self.whole
        while whole is not None:
            yield whole
            whole = whole.whole

    def __str__(self) -> str:
        return f"{self.submission}/{self.part}"


@dataclass(frozen=True)
class ResponseName:
    """The name of a response file: that of its batch, of a refusal, of an import, or of live calls.

    Attributes:
        stem: The name without its extension.
    """

    stem: str

    @classmethod
    def of_batch(cls, batch_id: str) -> Self:
        """Return the name of the file with the responses of a batch."""
        return cls(batch_id)

    @classmethod
    def of_refusal(cls, file_id: str) -> Self:
        """Return the name of the file with the refusal of a request file's only request."""
        file = RequestFileId.parse(file_id)
        return cls(f"{_REFUSED}{file.submission}.{file.part.stem}")

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Parse the name of a file in the folder of responses; None if it is not a response file."""
        return cls(name.removesuffix(_RESPONSES)) if name.endswith(_RESPONSES) else None

    @classmethod
    def of_import(cls, digest: str) -> Self:
        """Return the name of a file with imported answers.

        Args:
            digest: Identifies these answers.
        """
        return cls(_IMPORTED + digest)

    @property
    def is_import(self) -> bool:
        """Whether the file has answers that were imported. Its stem is the id of the import in the ledger."""
        return self.stem.startswith(_IMPORTED)

    @classmethod
    def of_live_calls(cls, file_id: str, number: int) -> Self:
        """Return the name of the file with the answers of live calls.

        Args:
            file_id: The id of the request file whose requests were asked.
            number: The ordinal of the group of live calls among those for this file, from 1.
        """
        file = RequestFileId.parse(file_id)
        return cls(f"{_LIVE}{file.submission}.{file.part.stem}.{number}")

    @property
    def is_live(self) -> bool:
        """Whether the file has the answers of live calls. Its stem is the id of their group in the ledger."""
        return self.stem.startswith(_LIVE)

    @property
    def asked_live(self) -> tuple[RequestFileId, int] | None:
        """The request file that live calls were made for, and the ordinal of their group; None for other files."""
        parts = self.stem.removeprefix(_LIVE).rsplit(".", 2)
        if not self.is_live or len(parts) != 3 or not parts[2].isdecimal():
            return None
        submission, part, number = parts
        try:
            return SubmissionId(submission).file(PartName.parse(part + _REQUESTS)), int(number)
        except ValueError:
            return None

    @property
    def is_never_followed(self) -> bool:
        """Whether its answers are no part of a chain: no request file has a line at their position."""
        return self.is_import or self.is_live

    @property
    def batch_id(self) -> str | None:
        """The id of the batch that the responses came from, or of live calls; None for a refusal or an import."""
        return None if self.stem.startswith((_REFUSED, _IMPORTED)) else self.stem

    @property
    def refused(self) -> RequestFileId | None:
        """The request file that was refused; None for the responses of a batch."""
        if not self.stem.startswith(_REFUSED):
            return None
        submission, _, part = self.stem.removeprefix(_REFUSED).rpartition(".")
        return SubmissionId(submission).file(PartName.parse(part + _REQUESTS))

    def __str__(self) -> str:
        return self.stem + _RESPONSES


def _match(name: str, ending: str) -> re.Match[str] | None:
    return _PART.fullmatch(name.removesuffix(ending)) if name.endswith(ending) else None


def response_names(names: Iterable[str]) -> list[str]:
    """Return the names of response files among those of files."""
    return [name for name in names if name.endswith(_RESPONSES)]
