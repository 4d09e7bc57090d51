"""Responses, packed: the request that each one answers, and its outcome. 24 bytes for each of n responses:

    digests  S16    (n,)
    row      int32  (n,)  the row number of the response, see `ResponseFiles`
    packed   int32  (n,)  the follow-ups up to it << 20 | the kind of outcome << 16 | the attempt

Only this module packs and unpacks them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.objects import PASSING_ERRORS
from batch_assets.core.store.digests import Digests, order_of
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.responses import digest_array, has_follow_ups

SUCCEEDED, FAILED, PASSING, CANCELED = range(4)
"""The outcomes of a request: an answer, a failure that a retry would repeat, one that may pass, or canceled."""

NO_OUTCOME = 0
"""The attempts of a response that is no outcome of its request: a failed live call, whose batch goes on."""

_SHIFT, _KIND, _ATTEMPT = 16, 0xF, 0xFFFF
_STEP_SHIFT = 20
_COLUMNS = ["digest", "result_type", "error_type", "attempts"]


class Responses(NamedTuple):
    """n responses, packed. A request may have several of them.

    Attributes:
        digests: S16, shape (n,).
        row: int32, shape (n,): the row numbers of the responses.
        packed: int32, shape (n,): see the module's docstring.
    """

    digests: Digests
    row: NDArray[np.int32]
    packed: NDArray[np.int32]

    @property
    def kind(self) -> NDArray[np.int32]:
        """SUCCEEDED, FAILED, PASSING or CANCELED: int32, shape (n,)."""
        return kind_of(self.packed)

    @property
    def attempt(self) -> NDArray[np.int32]:
        """The attempt that each response came from, counted over its chain: int32, shape (n,)."""
        return attempt_of(self.packed)

    @property
    def step(self) -> NDArray[np.int32]:
        """The number of follow-ups in the chain up to each response: int32, shape (n,)."""
        return step_of(self.packed)

    def at(self, chosen: NDArray[Any]) -> Responses:
        """Return some of them, by a mask or by positions."""
        return Responses(self.digests[chosen], self.row[chosen], self.packed[chosen])


def kind_of(packed: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the kinds of packed outcomes: int32, in the shape of `packed`."""
    return packed >> _SHIFT & _KIND


def attempt_of(packed: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the attempts of packed outcomes: int32, in the shape of `packed`."""
    return packed & _ATTEMPT


def step_of(packed: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the number of follow-ups up to packed outcomes: int32, in the shape of `packed`."""
    return packed >> _STEP_SHIFT


def with_outcome(kind: int, attempts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return packed outcomes of one kind: int32, in the shape of `attempts`."""
    return (kind << _SHIFT) | attempts


def read_outcomes(file: pq.ParquetFile) -> pa.Table:
    """Read the columns of an open response file that `packed_responses` needs."""
    columns = [*_COLUMNS, "custom_id"] if has_follow_ups(file) else _COLUMNS
    return file.read(columns=columns, use_threads=False)


def packed_responses(table: pa.Table) -> Responses:
    """Return the responses of one file, sorted by digest. See `responses_of`."""
    responses = responses_of(table)
    return responses.at(order_of(responses.digests))


def responses_of(table: pa.Table) -> Responses:
    """Return the responses of one file in its order, with the rows counted within it. No digest occurs twice.

    Left out are those of requests that a damaged request file no longer names, and those that are `NO_OUTCOME`.

    Args:
        table: What `read_outcomes` returned.
    """
    rows = np.arange(len(table), dtype=np.int32)
    counts = table["digest"].is_valid().to_numpy() & (table["attempts"].to_numpy() != NO_OUTCOME)
    if not counts.all():
        table, rows = table.filter(pa.array(counts)), rows[counts]
    packed = (_kinds(table) << _SHIFT) | table["attempts"].to_numpy().astype(np.int32)
    if "custom_id" in table.column_names:
        packed |= counts_in(table["custom_id"]).sum(axis=1, dtype=np.int32) << _STEP_SHIFT
    return Responses(digest_array(table["digest"]), rows, packed)


def ordered(responses: Responses) -> Responses:
    """Sort responses by digest and then by row number."""
    if (responses.row[1:] < responses.row[:-1]).any():
        responses = responses.at(np.argsort(responses.row, kind="stable"))
    return responses.at(order_of(responses.digests))


def _kinds(table: pa.Table) -> NDArray[np.int32]:
    result, error = table["result_type"], table["error_type"]
    passing = pc.or_(
        pc.equal(result, ResultType.EXPIRED),
        pc.and_(
            pc.equal(result, ResultType.ERRORED),
            pc.fill_null(pc.is_in(error, pa.array(sorted(PASSING_ERRORS))), False),
        ),
    )
    kinds = np.full(len(table), FAILED, dtype=np.int32)
    kinds[passing.to_numpy()] = PASSING
    kinds[pc.equal(result, ResultType.CANCELED).to_numpy()] = CANCELED
    kinds[pc.equal(result, ResultType.SUCCEEDED).to_numpy()] = SUCCEEDED
    return kinds
