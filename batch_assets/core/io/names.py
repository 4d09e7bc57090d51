"""Names under the root that carry meaning: of a submission, of a request file, of a file of responses."""

from __future__ import annotations

import calendar
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

_ID_TIME = "%Y%m%dT%H%M%S"
_PART = re.compile(r"part-(?P<ordinal>\d{5}|[1-9]\d{5,})(?P<cuts>(?:-[12])*)")
_REQUESTS, _RECEIPT, _RESPONSES = ".jsonl", ".batch.json", ".parquet"
# Before the name of a response file that no batch brought.
_REFUSED = "refused."

REQUEST_FILES = f"part-*{_REQUESTS}"
"""A pattern that the names of request files match."""


@dataclass(frozen=True, order=True)
class SubmissionId:
    """The id of a submission, which is also the name of its folder: `20261128T093000-1f2e3d4c`.

    Attributes:
        text: the id.
    """

    text: str

    @classmethod
    def new(cls) -> Self:
        """An id that sorts by the time of its making, and unlike any other."""
        return cls(time.strftime(_ID_TIME, time.gmtime()) + "-" + secrets.token_hex(4))

    @property
    def built_at(self) -> float | None:
        """When the submission was built by our clock, seconds since 1970; None for an id that does not tell."""
        try:
            return float(calendar.timegm(time.strptime(self.text.partition("-")[0], _ID_TIME)))
        except ValueError:
            return None

    def file(self, part: PartName) -> RequestFileId:
        """One of its request files."""
        return RequestFileId(self, part)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, order=True)
class PartName:
    """The name of a request file: `part-00003.jsonl`, or `part-00003-1-2.jsonl` once it was cut twice.

    Attributes:
        ordinal: which file of its submission it is, from 0.
        cuts: for each time the API found it too large, which half it is: 1 or 2.
    """

    ordinal: int
    cuts: tuple[int, ...] = ()

    @classmethod
    def parse(cls, name: str) -> Self:
        """Reads the name of a request file.

        Raises:
            ValueError: `name` is not one.
        """
        if (found := _match(name, _REQUESTS)) is None:
            raise ValueError(f"{name!r} is no name of a request file")
        return cls._of(found)

    @classmethod
    def of_file(cls, name: str) -> Self | None:
        """The request file that a file beside it belongs to, itself or its receipt; None for any other file."""
        found = _match(name, _REQUESTS) or _match(name, _RECEIPT)
        return None if found is None else cls._of(found)

    @classmethod
    def _of(cls, found: re.Match[str]) -> Self:
        return cls(int(found["ordinal"]), tuple(int(half) for half in found["cuts"].split("-")[1:]))

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return "-".join([f"part-{self.ordinal:05d}", *map(str, self.cuts)])

    @property
    def receipt(self) -> str:
        """The name of its receipt."""
        return self.stem + _RECEIPT

    @property
    def halves(self) -> tuple[PartName, PartName]:
        """The two files that take its place when the API finds it too large."""
        return PartName(self.ordinal, (*self.cuts, 1)), PartName(self.ordinal, (*self.cuts, 2))

    @property
    def whole(self) -> PartName | None:
        """The file that it is a half of; None for one that was never cut."""
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
        """Reads an id.

        Raises:
            ValueError: `text` is not one.
        """
        submission, _, name = text.rpartition("/")
        return cls(SubmissionId(submission), PartName.parse(name))

    @property
    def halves(self) -> tuple[RequestFileId, RequestFileId]:
        """The two files that take its place when the API finds it too large."""
        first, second = self.part.halves
        return self.submission.file(first), self.submission.file(second)

    @property
    def whole(self) -> RequestFileId | None:
        """The file that it is a half of; None for one that was never cut."""
        whole = self.part.whole
        return None if whole is None else self.submission.file(whole)

    def wholes(self) -> Iterator[RequestFileId]:
        """The files that it was cut from, the last cut first."""
        whole = self.whole
        while whole is not None:
            yield whole
            whole = whole.whole

    def __str__(self) -> str:
        return f"{self.submission}/{self.part}"


@dataclass(frozen=True)
class ResponseName:
    """The name of a response file: that of its batch, or of the request file whose refusal it holds.

    Attributes:
        stem: the name without its ending.
    """

    stem: str

    @classmethod
    def of_batch(cls, batch_id: str) -> Self:
        """Where the responses of a batch are."""
        return cls(batch_id)

    @classmethod
    def of_refusal(cls, file_id: str) -> Self:
        """Where the refusal of a request file's only request is."""
        file = RequestFileId.parse(file_id)
        return cls(f"{_REFUSED}{file.submission}.{file.part.stem}")

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Reads the name of a file among the responses; None for a file of another kind."""
        return cls(name.removesuffix(_RESPONSES)) if name.endswith(_RESPONSES) else None

    @property
    def batch_id(self) -> str | None:
        """The batch that brought the responses; None for a refusal."""
        return None if self.stem.startswith(_REFUSED) else self.stem

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
