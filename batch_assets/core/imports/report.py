"""What an import did, and why it left lines out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from batch_assets.core.errors import BatchAssetsError


class ImportFailedError(BatchAssetsError):
    """Answers cannot be imported. Nothing was stored."""


class MatchedBy(StrEnum):
    """How a line was matched to a request."""

    DIGEST = "digest"
    """Its custom_id ends with the digest of the request: this project sent it, from this root or another one."""
    PARAMS = "params"
    """The file of requests shows the same params."""
    KEY = "key"
    """Its custom_id is the row key, and the user trusts that the answer belongs to the row."""


class LeftOut(StrEnum):
    """Why a line is not imported."""

    UNREADABLE = "it is not a result line with a custom_id of the API"
    NO_ANSWER = "it has no answer: errored, canceled or expired"
    REPEATED = "its custom_id or its request is there more than once"
    OTHER_PARAMS = "no row asks for its params"
    HEADERS = "a row has its params, and sends headers that a file of requests does not show"
    KEY_ONLY = "its custom_id is a row key, and nothing shows what was asked"
    OTHER_MODEL = "its custom_id is a row key, and another model than the row's answered"
    UNKNOWN = "it matches no row"
    ANSWERED = "the request has an answer already"


@dataclass
class ImportReport:
    """Report of an import.

    Attributes:
        source: The file or batch.
        batch_id: What the column `batch_id` has for the answers.
        lines: The number of lines.
        rows: The number of rows that were compared.
        imported: The number of answers stored, by how they were matched.
        left_out: The number of lines left out, by reason.
        examples: Some custom_ids of the lines left out, by reason.
        picodollars: What the answers cost by the price list, elsewhere.
        unpriced: The number of answers whose cost is unknown.
    """

    source: str
    batch_id: str
    lines: int = 0
    rows: int = 0
    imported: dict[MatchedBy, int] = field(default_factory=dict)
    left_out: dict[LeftOut, int] = field(default_factory=dict)
    examples: dict[LeftOut, list[str]] = field(default_factory=dict)
    picodollars: int = 0
    unpriced: int = 0

    @property
    def answers(self) -> int:
        """The number of answers stored."""
        return sum(self.imported.values())
