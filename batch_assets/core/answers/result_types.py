"""The result types: the values of the column `result_type`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from batch_assets.core.text import count, counts


class ResultType(StrEnum):
    """What a row of the results table has, in the order in which texts list the types.

    The first four are the API's own, and the only ones in response files. The others are only in the table.
    """

    SUCCEEDED = "succeeded"
    """Its request was answered, whether or not the answer matches the output schema."""
    ERRORED = "errored"
    """Its request failed, or its answer is lost: `error_type` and `error_message` say why."""
    EXPIRED = "expired"
    """Its batch ended before its request was processed."""
    CANCELED = "canceled"
    """Its request was canceled, at the API or before it was sent."""
    REJECTED = "rejected"
    """The template rejected the row: there is no request."""
    PENDING = "pending"
    """It waits for an answer. All other types are final."""

    @property
    def failed(self) -> bool:
        """It is final, and the row has no answer."""
        return self not in (ResultType.SUCCEEDED, ResultType.PENDING)


FAILED = [result_type for result_type in ResultType if result_type.failed]


UNCHANGING = frozenset({ResultType.SUCCEEDED, ResultType.REJECTED})
"""The types that stay as they are while dataset, pipeline and responses do: no batch in flight can change them."""


def final_rows(counts: Mapping[str, int]) -> int:
    """Count the rows with a final type.

    Args:
        counts: Rows by result type.
    """
    return sum(counts.values()) - counts.get(ResultType.PENDING, 0)


def failed_rows(counts: Mapping[str, int]) -> int:
    """Count the rows with a final type and no answer, rejected rows included.

    Args:
        counts: Rows by result type.
    """
    return final_rows(counts) - counts.get(ResultType.SUCCEEDED, 0)


def failed_share(counts: Mapping[str, int]) -> float:
    """Compute the share of rows that fail, if pending rows go the same way as those that were sent.

    `max_failed` limits it. Rejected rows are known before anything is sent: after a limit, those of the whole
    dataset are beside the answers of a few rows.

    Args:
        counts: Rows by result type.
    """
    rows, rejected = sum(counts.values()), counts.get(ResultType.REJECTED, 0)
    sent, failed = final_rows(counts) - rejected, failed_rows(counts) - rejected
    if not sent:
        return rejected / rows if rows else 0.0
    # One division of whole numbers: a share that is exactly `max_failed` is not a rounding step above it.
    return (rejected * sent + (rows - rejected) * failed) / (rows * sent)


def results_as_text(results: Mapping[str, int], unusable: int) -> str:
    """Return rows by result type as text: "6 succeeded, 1 errored; 2 answers cannot be used".

    Args:
        results: Rows by result type.
        unusable: The rows with an answer that cannot be used.
    """
    answers = f"; {count(unusable, 'answer')} cannot be used" if unusable else ""
    return f"{counts(results)}{answers}"
