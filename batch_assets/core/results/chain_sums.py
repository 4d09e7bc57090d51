"""What the earlier answers of chains add to their last one: tokens, cost and attempts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.result_columns import COUNTED_ONCE
from batch_assets.core.prices.money import PICODOLLARS, picodollars_by, picodollars_of
from batch_assets.core.store.chains import Chains
from batch_assets.core.store.responses import ResponseFiles

_COST, _LIVE = "cost_usd", "live_cost_usd"
_TOKENS = [name for name in COUNTED_ONCE if name != _COST]


class ChainSums:
    """Adds the earlier answers of chains to the answers in force. Takes about 80 bytes for each chain.

    Args:
        files: The response files.
        chains: The chains.
        batch_multiplier: The price of a token in a batch as a fraction of its price in a live call, for answers of
            early versions, which have no live cost.

    Raises:
        DamagedFileError: When a response file cannot be read.
    """

    def __init__(self, files: ResponseFiles, chains: Chains, batch_multiplier: float) -> None:
        self._chains = chains
        self._row = np.unique(chains.earlier_of)
        self._tokens = {name: np.zeros(len(self._row), np.int64) for name in _TOKENS}
        self._costs = {name: np.zeros(len(self._row), np.int64) for name in (_COST, _LIVE)}
        self._unknown = {name: np.zeros(len(self._row), bool) for name in (_COST, _LIVE)}
        order = np.argsort(chains.earlier, kind="stable")
        earlier, chain = chains.earlier[order], np.searchsorted(self._row, chains.earlier_of[order])
        for number, selected, rows in files.by_file(earlier.astype(np.int64)):
            table = files.read(number, [*_TOKENS, _COST, _LIVE]).take(pa.array(rows))
            live = pc.coalesce(table[_LIVE], pc.divide(table[_COST], batch_multiplier))
            self._add(table, live, chain[selected])

    def _add(self, table: pa.Table, live: pa.ChunkedArray, chain: NDArray[np.intp]) -> None:
        """Add some earlier answers, each to the chain with its number."""
        for name, sums in self._tokens.items():
            np.add.at(sums, chain, pc.fill_null(table[name], 0).to_numpy())
        for name, column in ((_COST, table[_COST]), (_LIVE, live)):
            self._costs[name] += np.array(picodollars_by(chain, len(self._row), column), np.int64)
            self._unknown[name][chain[column.is_null().to_numpy()]] = True

    def add_to(self, columns: dict[str, Any], response_row: NDArray[np.int64]) -> None:
        """Add the earlier answers to the columns of a slice, and the attempts that brought no answer.

        Args:
            columns: The columns of n answers in force by name. Changed in place.
            response_row: The row number of each answer, -1 without one: int64, shape (n,).
        """
        at = self._chains.find(response_row)
        if (at < 0).all():
            return
        attempts = columns["attempts"]
        sent = pa.array(self._chains.attempts[at], pa.int32(), mask=at < 0)
        columns["attempts"] = pc.coalesce(sent, attempts)
        position = np.minimum(np.searchsorted(self._row, response_row), max(len(self._row) - 1, 0))
        if not len(self._row):
            return
        has_earlier = self._row[position] == response_row
        for name, sums in self._tokens.items():
            added = pa.array(sums[position], mask=~has_earlier)
            total = pc.add(pc.fill_null(columns[name], 0), added)
            # A class of tokens that no answer has stays null.
            total = pc.if_else(pc.and_(columns[name].is_null(), pc.equal(added, 0)), columns[name], total)
            columns[name] = pc.coalesce(total, columns[name])
        for name, costs in self._costs.items():
            own = picodollars_of(columns[name])
            is_unknown = self._unknown[name][position] | columns[name].is_null().to_numpy()
            total = pa.array((own + costs[position]) / PICODOLLARS, mask=is_unknown)
            columns[name] = pc.if_else(pa.array(has_earlier), total, columns[name])
