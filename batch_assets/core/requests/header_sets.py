"""Header sets: a batch is sent with one, so requests of different ones go to different request files."""

from __future__ import annotations

from typing import Any

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.store.digests import digester
from batch_assets.core.template.betas import Betas
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError

# A submission writes into that many request files at once.
MAX_HEADER_SETS = 16


class HeaderSets:
    """The header sets of a submission's requests, numbered from 0 in the order in which rows bring them.

    Args:
        pipeline: whose requests they are.
        betas: what the rows of its dataset ask for.

    Attributes:
        common: the headers that all requests have, by which a submission is known.
        sets: the headers of each; the one that all rows have, where they do not decide.
        primed: for each, the hash that a digest begins with.
        by_row: whether rows decide.
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

    def number_of(self, row: Row) -> int:
        """The number of the set that a row's request is sent with.

        Errors:
            RowRejectedError: the betas cannot be rendered, or the set would be one too many.
        """
        betas = self._betas.of(row)
        number = self._numbers.get(betas)
        return self._add(betas) if number is None else number

    def _add(self, betas: str | None) -> int:
        if len(self.sets) == MAX_HEADER_SETS:
            raise RowRejectedError(
                "template_error",
                f"betas: the row asks for {betas or 'none'}, and rows before it for {MAX_HEADER_SETS} other "
                "combinations: more are not sent at once, as each takes batches of its own",
            )
        self.sets.append(self._pipeline.headers_with(betas))
        self.primed.append(digester(self.sets[-1]))
        self._numbers[betas] = len(self.sets) - 1
        return self._numbers[betas]
