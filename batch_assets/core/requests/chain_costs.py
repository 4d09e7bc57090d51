"""What the follow-ups of some answers cost, read from the answers of a pipeline that were stored last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpRules
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger.estimates import AnsweredFile
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.responses import RESPONSE_SCHEMA, digest_array, open_responses, reading_responses

ENDS = ["stop_reason", "output_tokens", "response_model"]
"""The columns that tell whether an answer may be followed by another request."""
_COLUMNS = ["digest", "custom_id", "result_type", "cost_usd", *ENDS]


@dataclass(frozen=True)
class ChainCosts:
    """The follow-ups of n answers. All arrays have the shape (n,).

    Attributes:
        costs: What they cost in picodollars; float64, NaN if it is unknown.
        has_any: Whether there are any: bool.
        is_open: Whether the last one may be followed by another that is not stored yet: bool.
    """

    costs: NDArray[np.float64]
    has_any: NDArray[np.bool_]
    is_open: NDArray[np.bool_]


def has_follow_ups(root: Root, answered: AnsweredFile) -> bool:
    """Whether a file has follow-ups. A plan counts first requests, and these have other prompts and answers."""
    return answered.file.attempt > 1 and StoredRequestFile.of(root.storage, answered.file).has_follow_ups()


def chains_after(
    root: Root, listed: Sequence[AnsweredFile], digests: Digests, of_file: NDArray[np.int64], rules: FollowUpRules
) -> ChainCosts:
    """Sum up the follow-ups of answers. A follow-up is stored after what it follows, so it is in a newer file.

    Args:
        root: The root.
        listed: Files of the pipeline, the newest first.
        digests: The digests of n requests: S16, sorted, shape (n,).
        of_file: The position in `listed` of the file of each one: int64, shape (n,).
        rules: Which answers are followed. What they do not ask for any more is left out.
    """
    newer = listed[: int(of_file.max(initial=0))]
    looked_at = root.storage.together([partial(has_follow_ups, root, each) for each in newer])
    chosen = [number for number, follows in enumerate(looked_at) if follows]
    tables = root.storage.together([partial(_of_file, root, newer[number], digests) for number in chosen])
    table = pa.concat_tables([RESPONSE_SCHEMA.empty_table().select(_COLUMNS), *tables])
    age = np.repeat(np.array(chosen, np.int64), [len(each) for each in tables])
    request = np.searchsorted(digests, digest_array(table["digest"]))
    counts = counts_in(table["custom_id"])
    counted = (age < of_file[request]) & (counts <= rules.times).all(axis=1)
    table, request, counts = table.filter(pa.array(counted)), request[counted], counts[counted]
    is_answer = pc.equal(table["result_type"], ResultType.SUCCEEDED).to_numpy()
    amounts = table["cost_usd"].to_numpy() * PICODOLLARS
    costs = np.zeros(len(digests))
    np.add.at(costs, request, np.where(is_answer, amounts, 0.0))
    columns = {name: table[name] for name in ENDS}
    # One that failed ends its chain, or its next attempt is sent: nothing is known of its cost in either case.
    goes_on = is_answer & rules.may_go_on(columns, counts, root.settings.prices.max_output)
    in_order = np.lexsort((is_answer, counts.sum(axis=1, dtype=int)))
    has_any, is_open = np.zeros((2, len(digests)), bool)
    has_any[request], is_open[request[in_order]] = True, goes_on[in_order]
    return ChainCosts(costs, has_any, is_open)


def _of_file(root: Root, answered: AnsweredFile, digests: Digests) -> pa.Table:
    """Read the answers in some chains; none if the file cannot be read: whatever needs it reports that."""
    pipeline, name = answered.file.pipeline, ResponseName.of_batch(answered.batch_id)
    parts = [RESPONSE_SCHEMA.empty_table().select(_COLUMNS)]
    try:
        with (
            open_responses(root.storage, pipeline, name) as opened,
            reading_responses(root.storage, pipeline, name),
        ):
            for group in range(opened.num_row_groups):
                table = opened.read_row_group(group, columns=_COLUMNS, use_threads=False)
                parts.append(table.filter(pa.array(np.isin(digest_array(table["digest"]), digests))))
    except (DamagedFileError, FileNotFoundError):
        parts = parts[:1]
    return pa.concat_tables([part.cast(parts[0].schema) for part in parts])
