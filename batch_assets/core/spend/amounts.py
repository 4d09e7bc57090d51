"""Add up the responses of a batch: requests, tokens and amounts by model, in whole picodollars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.io.parquet import with_columns
from batch_assets.core.io.slices import slices_of
from batch_assets.core.prices.money import picodollars_of
from batch_assets.core.prices.prices import MOST_TOKENS_AT_ONCE, Prices
from batch_assets.core.prices.usage import usage_of
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.responses import RESPONSE_SCHEMA, digest_array

Amounts = Counter[str]
"""Whole numbers by the columns below."""
TOKENS = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
    "thinking_tokens",
)
COUNTED = ("requests", "answers", "unpriced_answers", *TOKENS)
"""The columns with numbers of something."""
CLASSES = ("input_usd", "cache_write_5m_usd", "cache_write_1h_usd", "cache_read_usd", "output_usd", "fees_usd")
USELESS = ("superseded_usd", "paid_twice_usd", "refused_usd", "truncated_usd")
AMOUNTS = ("cost_usd", *CLASSES, "unsplit_usd", "saved_batch_usd", "saved_cache_usd", *USELESS, "invalid_usd")
"""The columns with amounts, in picodollars. The classes and `unsplit_usd` add up to `cost_usd`. `invalid_usd` are
answers that a follow-up has replaced: which of the others are invalid is known from the results tables."""
IN_FORCE, SUPERSEDED, PAID_TWICE, CONTINUED, REPLACED = range(5)
"""Whether an answer is in force, was replaced by a refresh, or is another answer to a request that has one; and of
those in force: whether another one continued it, so that it is a part of the result, or replaced it as invalid."""

_COLUMNS = [
    "digest",
    "result_type",
    "error_type",
    "error_message",
    "stop_reason",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "thinking_tokens",
    "cost_usd",
    "live_cost_usd",
]
# The API may have answered and billed these requests. Their answers are not in the response store.
_UNKNOWN = [
    ErrorType.MISSING_RESULT,
    ErrorType.RESULTS_ARCHIVED,
    ErrorType.UNREADABLE_RESULT,
    ErrorType.LIVE_CALL_LOST,
    "unknown_result_type",
]


class FileAmounts:
    """The amounts of a response file.

    Attributes:
        by_model: By the model that answered; "" for requests without an answer.
        unknown: The digests of requests that may have been billed and whose answers are not stored; S16.
        unknown_requests: Their number, those without a digest included.
        has_pruned: Whether answers were pruned, so that their requests may have been asked again.
    """

    def __init__(self, *, is_live: bool = False) -> None:
        self._is_live = is_live
        self.by_model: dict[str, Amounts] = {}
        self.unknown: list[Digests] = []
        self.unknown_requests = 0
        self.has_pruned = False

    @classmethod
    def of(
        cls, file: pq.ParquetFile, prices: Prices, fates: NDArray[np.int8] | None = None, *, is_live: bool = False
    ) -> FileAmounts:
        """Add up a response file.

        Args:
            file: The open file.
            prices: The prices in force, by which costs are split.
            fates: IN_FORCE, SUPERSEDED, PAID_TWICE, CONTINUED or REPLACED for each row; int8, shape (rows,).
                `None`: all are in force.
            is_live: Whether they are answers of live calls.
        """
        columns, total = _COLUMNS, cls(is_live=is_live)
        if not total._add(file, columns, prices, fates):
            total = cls(is_live=is_live)  # the usage of some answers is needed: it is by far the largest column
            total._add(file, [*_COLUMNS, "response_json"], prices, fates)
        return total

    def _add(
        self, file: pq.ParquetFile, columns: list[str], prices: Prices, fates: NDArray[np.int8] | None
    ) -> bool:
        """Add all rows. Return False as soon as a row's usage is needed and not among the columns."""
        stored, first = [name for name in columns if name in file.schema_arrow.names], 0
        for some in slices_of(file, stored):
            rows = with_columns(pa.Table.from_batches([some]), RESPONSE_SCHEMA, columns)
            fate = np.zeros(len(rows), np.int8) if fates is None else fates[first : first + len(rows)]
            first += len(rows)
            if not self._add_rows(rows, prices, fate):
                return False
        return True

    def _add_rows(self, rows: pa.Table, prices: Prices, fate: NDArray[np.int8]) -> bool:
        unknown = pc.or_(
            pc.fill_null(pc.is_in(rows["error_type"], pa.array(list(map(str, _UNKNOWN)))), False),
            # The API gives no reason. Ours is that the batch was deleted before its answers were stored.
            pc.and_(pc.equal(rows["result_type"], ResultType.CANCELED.value), rows["error_message"].is_valid()),
        )
        is_pruned = _is_pruned(rows)
        self.has_pruned |= bool(pc.any(is_pruned).as_py())
        unknown = pc.and_(unknown, pc.invert(is_pruned))
        self.unknown_requests += pc.sum(unknown).as_py() or 0
        self.unknown.append(digest_array(rows["digest"].filter(unknown).drop_null()))
        known = pc.invert(unknown)
        rows, fate = rows.filter(known), fate[known.to_numpy()]
        split = _Split.of(rows, prices, is_live=self._is_live)
        if split is None:
            return False
        model_of = rows["response_model"].fill_null("").combine_chunks().dictionary_encode()
        codes = model_of.indices.to_numpy()
        for code, model in enumerate(model_of.dictionary.to_pylist()):
            chosen = np.flatnonzero(codes == code)
            amounts = _amounts(rows.take(pa.array(chosen)), split.columns, chosen, fate[chosen])
            self.by_model.setdefault(model, Counter()).update(amounts)
        return True


def _amounts(
    rows: pa.Table, split: Mapping[str, NDArray[np.int64]], chosen: NDArray[np.intp], fate: NDArray[np.int8]
) -> Amounts:
    """Add up the rows of one model.

    Args:
        rows: n rows.
        split: The columns of all rows of the slice, int64.
        chosen: The positions of the n rows in the slice.
        fate: See `FileAmounts.of`; shape (n,).
    """
    cost, live = split["cost_usd"][chosen], picodollars_of(rows["live_cost_usd"])
    live = np.where(rows["live_cost_usd"].is_valid().to_numpy(), live, cost)  # of a version without the column
    stop = rows["stop_reason"].fill_null("")
    is_refused = pc.equal(stop, REFUSED).to_numpy()
    is_truncated = pc.is_in(stop, pa.array(list(TRUNCATED))).to_numpy()
    is_answer = pc.or_(pc.equal(rows["result_type"], ResultType.SUCCEEDED.value), _is_pruned(rows))
    in_force = fate == IN_FORCE
    amounts = Counter({name: _sum(column[chosen]) for name, column in split.items()})
    amounts["requests"] = len(rows)
    amounts["answers"] = pc.sum(is_answer).as_py() or 0
    amounts["unpriced_answers"] = pc.sum(pc.and_(is_answer, rows["cost_usd"].is_null())).as_py() or 0
    amounts["thinking_tokens"] = _sum(_numbers(rows["thinking_tokens"]))
    amounts["saved_batch_usd"] = _sum(live - cost)
    amounts["superseded_usd"] = _sum(cost[fate == SUPERSEDED])
    amounts["paid_twice_usd"] = _sum(cost[fate == PAID_TWICE])
    amounts["refused_usd"] = _sum(cost[in_force & is_refused])
    amounts["truncated_usd"] = _sum(cost[in_force & is_truncated])
    amounts["invalid_usd"] = _sum(cost[fate == REPLACED])
    return amounts


def _is_pruned(rows: pa.Table) -> pa.ChunkedArray:
    """Return which rows were answers whose texts were pruned: bool, shape (n,). What they cost is known."""
    return pc.fill_null(pc.equal(rows["error_type"], ErrorType.PRUNED.value), False)


class _Split:
    """The tokens and the costs of rows by classes.

    Attributes:
        columns: Tokens by class, costs by class and `unsplit_usd`, `cost_usd`, and `saved_cache_usd`; each int64,
            shape (rows,).
    """

    def __init__(self, rows: pa.Table, *, is_live: bool) -> None:
        self._is_live = is_live
        cost, others = picodollars_of(rows["cost_usd"]), (*TOKENS[:-1], *CLASSES, "saved_cache_usd")
        self.columns = {name: np.zeros(len(rows), np.int64) for name in others}
        self.columns |= {"cost_usd": cost, "unsplit_usd": cost.copy()}

    @classmethod
    def of(cls, rows: pa.Table, prices: Prices, *, is_live: bool) -> _Split | None:
        """Split the costs of rows, all of live calls or none.

        Returns:
            `None` if a usage is needed and the rows do not have the column.
        """
        split = cls(rows, is_live=is_live)
        split._take_tokens(rows)
        left = split._split_plain(rows, prices)
        if len(left) and "response_json" not in rows.column_names:
            return None
        split._split_by_usage(rows, prices, left)
        return split

    def _take_tokens(self, rows: pa.Table) -> None:
        """Take the tokens as the columns have them."""
        self.columns["input_tokens"] = _numbers(rows["input_tokens"]).copy()
        self.columns["output_tokens"] = _numbers(rows["output_tokens"]).copy()
        self.columns["cache_read_tokens"] = _numbers(rows["cache_read_input_tokens"]).copy()
        self.columns["cache_write_5m_tokens"] = _numbers(rows["cache_creation_input_tokens"]).copy()

    def _split_plain(self, rows: pa.Table, prices: Prices) -> NDArray[np.intp]:
        """Split the costs of rows with nothing but usual tokens, all at once.

        Returns:
            The positions of the other rows with a cost.
        """
        columns, cost = self.columns, self.columns["cost_usd"]
        fresh, output = columns["input_tokens"], columns["output_tokens"]
        cached = columns["cache_read_tokens"] + columns["cache_write_5m_tokens"]
        is_usual = (cached == 0) & (fresh <= MOST_TOKENS_AT_ONCE) & (output <= MOST_TOKENS_AT_ONCE) & (cost > 0)
        models = rows["response_model"].fill_null("").combine_chunks().dictionary_encode()
        codes = models.indices.to_numpy()
        for code, model in enumerate(models.dictionary.to_pylist()):
            chosen = np.flatnonzero(is_usual & (codes == code))
            nothing = np.zeros(len(chosen), np.int64)
            prompt = prices.costs(model, None, [fresh[chosen], nothing, nothing, nothing], nothing)
            whole = prices.costs(model, None, [fresh[chosen], output[chosen], nothing, nothing], nothing)
            if prompt is None or whole is None:
                continue
            tier = 1 if self._is_live else 0
            is_right = whole[tier] == cost[chosen]
            right = chosen[is_right]
            columns["input_usd"][right] = prompt[tier][is_right]
            columns["output_usd"][right] = (whole[tier] - prompt[tier])[is_right]
            columns["unsplit_usd"][right] = 0
        return np.flatnonzero(columns["unsplit_usd"] > 0)

    def _split_by_usage(self, rows: pa.Table, prices: Prices, left: NDArray[np.intp]) -> None:
        """Split the costs of other rows by their usage. By other prices than in force, a cost stays as it is."""
        columns = self.columns
        texts = rows["response_json"].take(pa.array(left)).to_pylist() if len(left) else []
        models = rows["response_model"].take(pa.array(left)).to_pylist() if len(left) else []
        for at, model, text in zip(left.tolist(), models, texts, strict=True):
            usage = usage_of(text)
            parts = prices.cost_parts(model or "", usage, is_live=self._is_live) if usage is not None else None
            if parts is None:
                continue
            for name, tokens in zip(TOKENS, parts.tokens, strict=False):
                columns[name][at] = tokens
            cost = int(columns["cost_usd"][at])
            if sum(parts.costs) + parts.fees == cost:
                for name, amount in zip(CLASSES, (*parts.costs, parts.fees), strict=True):
                    columns[name][at] = amount
                columns["unsplit_usd"][at] = 0
                columns["saved_cache_usd"][at] = parts.uncached + parts.fees - cost


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = column.fill_null(0).to_numpy()
    return numbers


def _sum(numbers: NDArray[np.int64]) -> int:
    """Add up whole numbers exactly, also those whose sum has more than 64 bits."""
    high = numbers >> 32
    return (int(high.sum()) << 32) + int((numbers - (high << 32)).sum())
