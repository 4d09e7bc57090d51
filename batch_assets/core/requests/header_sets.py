"""Header sets. A batch is sent with one, so requests with different headers go into different request files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from batch_assets.core.errors import ErrorType
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.store.digests import digester
from batch_assets.core.template.betas import Betas
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError

# A submission has one request file open for each set, so this is the number of files open at once.
MAX_HEADER_SETS = 16


class HeaderSets:
    """The header sets of a submission's requests, numbered from 0 in the order in which rows need them.

    Args:
        pipeline: The pipeline of the requests.
        betas: The betas that the rows of its dataset ask for.

    Attributes:
        common: The headers that all requests have. The ledger and the manifest record them for the submission.
        sets: The headers of each set. There is only one if they do not depend on the row.
        primed: For each set, the hash state that a digest starts from.
        by_row: Whether the headers depend on the row.
    """

    def __init__(self, pipeline: Pipeline, betas: Betas) -> None:
        self._pipeline, self._betas = pipeline, betas
        self.by_row = betas.by_row
        self.common = pipeline.headers_with(betas.constant)
        self.sets: list[dict[str, str]] = []
        self.primed: list[Any] = []
        self._numbers: dict[str | None, int] = {}
        if not self.by_row:
            self._add(betas.constant)

    def number_of(self, row: Row, present: Collection[str] | None = None) -> int:
        """Return the number of the set that a row's request is sent with.

        Args:
            row: See `Template.render`.
            present: See `Template.render`.

        Raises:
            RowRejectedError: When the betas cannot be rendered, or there would be too many sets.
        """
        betas = self._betas.of(row, present)
        number = self._numbers.get(betas)
        return self._add(betas) if number is None else number

    def _add(self, betas: str | None) -> int:
        if len(self.sets) == MAX_HEADER_SETS:
            raise RowRejectedError(
                ErrorType.TEMPLATE_ERROR,
                f"betas: the row needs {betas or 'none'}, and earlier rows need {MAX_HEADER_SETS} other "
                "combinations, which is the limit of one submission, because each needs batches of its own",
            )
        self.sets.append(self._pipeline.headers_with(betas))
        self.primed.append(digester(self.sets[-1]))
        self._numbers[betas] = len(self.sets) - 1
        return self._numbers[betas]
