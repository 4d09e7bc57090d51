"""Which rows of the results tables the answers of each batch are used for, and what using them again saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.ok_rows import stopped
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError, ErrorType
from batch_assets.core.io.layout import SPEND_TABLES, results_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import open_parquet, reading_parquet
from batch_assets.core.io.slices import slices_of
from batch_assets.core.io.storage import Storage
from batch_assets.core.prices.money import picodollars_of
from batch_assets.core.spend.by_batch import MONEY, money_column, read_columns, write_columns
from batch_assets.core.spend.duplicates import AnswerFates
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.responses import open_responses, reading_responses
from batch_assets.core.store.result_table import submission_of

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("pipeline", "partition", "version", "batch_id")),
        ("rows", pa.int64()),
        ("truncated_usd", MONEY),
        ("invalid_usd", MONEY),
        ("saved_reuse_usd", MONEY),
    ]
)
_COLUMNS = ["custom_id", "result_type", "stop_reason", "cost_usd", "shared_with", "error_type", "batch_id"]
_IS_OK = "is_ok"


FatesOf = Callable[[Digests], AnswerFates]
"""Returns what became of the answers to some requests."""


@dataclass
class TableUse:
    """What a results table makes of the answers, by batch id.

    Attributes:
        rows: The rows that have an answer of the batch.
        invalid: What answers cost that do not match the output schema, in picodollars.
        unfinished: What other answers cost that end with calls of tools which nothing answered, in picodollars.
        reused: What the rows that no request was sent for would have cost, in picodollars.
        invalid_follow_ups, unfinished_follow_ups: The custom_ids of follow-ups that are not in `invalid` or
            `unfinished` yet: the cost of their row is that of the chain.
        version: The version of the table.
    """

    rows: Counter[str] = field(default_factory=Counter)
    invalid: Counter[str] = field(default_factory=Counter)
    unfinished: Counter[str] = field(default_factory=Counter)
    reused: Counter[str] = field(default_factory=Counter)
    invalid_follow_ups: dict[str, list[str]] = field(default_factory=dict)
    unfinished_follow_ups: dict[str, list[str]] = field(default_factory=dict)
    version: str = ""

    @classmethod
    def sum(cls, uses: Iterable[TableUse]) -> TableUse:
        """Add up those of several tables."""
        total = cls()
        for use in uses:
            total.rows.update(use.rows)
            total.invalid.update(use.invalid)
            total.unfinished.update(use.unfinished)
            total.reused.update(use.reused)
        return total


def read_uses(storage: Storage) -> dict[tuple[str, str], TableUse]:
    """Read what the last run made of the tables, by pipeline and partition."""
    columns = read_columns(storage, SPEND_TABLES, _SCHEMA)
    uses: dict[tuple[str, str], TableUse] = {}
    for at, (pipeline, partition) in enumerate(zip(columns["pipeline"], columns["partition"], strict=True)):
        use = uses.setdefault((pipeline, partition), TableUse(version=columns["version"][at]))
        batch_id = columns["batch_id"][at]
        use.rows[batch_id] = columns["rows"][at]
        use.invalid[batch_id] = columns["invalid_usd"][at]
        use.unfinished[batch_id] = columns["truncated_usd"][at]
        use.reused[batch_id] = columns["saved_reuse_usd"][at]
    return uses


def write_uses(storage: Storage, uses: Mapping[tuple[str, str], TableUse]) -> None:
    """Write what this run made of the tables. One without an answer has a row without a batch."""
    rows = [(key, use, batch_id) for key, use in uses.items() for batch_id in sorted(use.rows) or [""]]
    columns = {
        "pipeline": [key[0] for key, _, _ in rows],
        "partition": [key[1] for key, _, _ in rows],
        "version": [use.version for _, use, _ in rows],
        "batch_id": [batch_id for _, _, batch_id in rows],
        "rows": [use.rows[batch_id] for _, use, batch_id in rows],
        "truncated_usd": money_column([use.unfinished[batch_id] for _, use, batch_id in rows]),
        "invalid_usd": money_column([use.invalid[batch_id] for _, use, batch_id in rows]),
        "saved_reuse_usd": money_column([use.reused[batch_id] for _, use, batch_id in rows]),
    }
    write_columns(storage, SPEND_TABLES, _SCHEMA, columns)


def use_of(
    storage: Storage, pipeline: str, partition: str, submission_of_batch: dict[str, str], fates_of: FatesOf | None
) -> TableUse:
    """Read a results table.

    A row is answered again without a request if an earlier row has the same request, or if its answer came with an
    earlier submission of the partition.

    Args:
        storage: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        submission_of_batch: By batch id: the submission of this partition that wrote its request file.
        fates_of: Returns what became of the answers to some requests. A complete table keeps answers that others
            have replaced, and their response files have these as paid in vain. `None` if there are none.

    Returns:
        Without a version. Nothing, if the table does not exist or is damaged: the results stage writes it again.
    """
    use, parts = TableUse(), results_parts(pipeline, partition)
    if not storage.is_file(*parts):
        return use
    try:
        with (
            reading_parquet(storage.uri(*parts), "It is written again with the next answers"),
            storage.open(*parts) as source,
            open_parquet(source) as file,
        ):
            submission, shared = submission_of(file.schema_arrow), Counter[str]()
            columns = [*_COLUMNS, _IS_OK] if _has_is_ok(file.schema_arrow) else _COLUMNS
            for rows in slices_of(file, columns):
                answered = _answered(rows)
                shared.update(answered["custom_id"].filter(answered["shared_with"].is_valid()).to_pylist())
                _add(use, answered, submission, submission_of_batch, fates_of)
            for rows in slices_of(file, _COLUMNS) if shared else ():
                _add_shared(use, _answered(rows), shared)
        for amounts, follow_ups in (
            (use.invalid, use.invalid_follow_ups),
            (use.unfinished, use.unfinished_follow_ups),
        ):
            for batch_id, custom_ids in follow_ups.items():
                amounts[batch_id] += _own_costs(storage, pipeline, batch_id, custom_ids)
    except (DamagedFileError, FileNotFoundError):
        return TableUse()
    return use


def _has_is_ok(schema: pa.Schema) -> bool:
    """Whether a results table has our column `is_ok`, and not another one of the user's with this name."""
    at = schema.names.index("result_type") + 1
    return list(schema.names[at : at + 1]) == [_IS_OK]


def _answered(rows: pa.RecordBatch) -> pa.Table:
    is_answer = pc.and_(pc.equal(rows["result_type"], ResultType.SUCCEEDED.value), rows["batch_id"].is_valid())
    return pa.Table.from_batches([rows]).filter(is_answer)


def _add(
    use: TableUse,
    rows: pa.Table,
    submission: str | None,
    submission_of_batch: dict[str, str],
    fates_of: FatesOf | None,
) -> None:
    """Add the answered rows of a slice.

    Args:
        use: What is added to.
        rows: The rows.
        submission: The submission whose table it is.
        submission_of_batch: See `use_of`.
        fates_of: See `use_of`.
    """
    batches, amounts = rows["batch_id"].combine_chunks().dictionary_encode(), picodollars_of(rows["cost_usd"])
    names, codes = batches.dictionary.to_pylist(), batches.indices.to_numpy()
    is_whole = ~stopped(rows["stop_reason"]).to_numpy()
    is_invalid = pc.fill_null(pc.equal(rows["error_type"], ErrorType.INVALID_OUTPUT.value), False).to_numpy()
    is_unfinished = np.zeros(len(rows), bool)
    if _IS_OK in rows.column_names:  # all others that are not ok end with calls of tools
        is_unfinished = is_whole & ~is_invalid & ~pc.fill_null(rows[_IS_OK], True).to_numpy()
    is_invalid &= is_whole
    if fates_of is not None and (is_invalid | is_unfinished).any():
        in_force = _are_in_force(rows, is_invalid | is_unfinished, fates_of)
        is_invalid, is_unfinished = is_invalid & in_force, is_unfinished & in_force
    is_follow_up = (is_invalid | is_unfinished) & counts_in(rows["custom_id"]).any(axis=1)
    in_vain = (
        (is_invalid, use.invalid, use.invalid_follow_ups),
        (is_unfinished, use.unfinished, use.unfinished_follow_ups),
    )
    for code, name in enumerate(names):
        its = codes == code
        use.rows[name] += int(its.sum())
        for which, into, of_follow_ups in in_vain:
            into[name] += int(amounts[its & which & ~is_follow_up].sum())
            if (its & which & is_follow_up).any():
                custom_ids = rows["custom_id"].filter(pa.array(its & which & is_follow_up)).to_pylist()
                of_follow_ups.setdefault(name, []).extend(custom_ids)
        if submission is not None and submission_of_batch.get(name, submission) != submission:
            use.reused[name] += int(amounts[its].sum())


def _are_in_force(rows: pa.Table, chosen: NDArray[np.bool_], fates_of: FatesOf) -> NDArray[np.bool_]:
    """Return which of the chosen rows have an answer that is in force: bool, shape (n,).

    Args:
        rows: n answered rows.
        chosen: bool, shape (n,).
        fates_of: See `use_of`.
    """
    positions, some = np.flatnonzero(chosen), rows.filter(pa.array(chosen))
    tails = np.array([custom_id[-DIGEST_CHARACTERS:] for custom_id in some["custom_id"].to_pylist()], "S")
    digests = decode_tails(tails)[0]
    fates = fates_of(digests)
    batches, in_force = np.array(some["batch_id"].to_pylist()), np.zeros(len(rows), bool)
    for batch_id in np.unique(batches).tolist():
        its = batches == batch_id
        in_force[positions[its]] = np.isin(digests[its], fates.in_force_in(ResponseName.of_batch(batch_id)))
    return in_force


def _own_costs(storage: Storage, pipeline: str, batch_id: str, custom_ids: list[str]) -> int:
    """Return what answers of a batch did cost by themselves, in picodollars."""
    name = ResponseName.of_batch(batch_id)
    with open_responses(storage, pipeline, name) as file, reading_responses(storage, pipeline, name):
        stored = file.read(columns=["custom_id", "cost_usd"], use_threads=False)
    is_named = pc.is_in(stored["custom_id"], pa.array(custom_ids, pa.string()))
    return int(picodollars_of(stored["cost_usd"].filter(is_named)).sum())


def _add_shared(use: TableUse, rows: pa.Table, shared: Counter[str]) -> None:
    """Add what the rows would have cost that share the answer of an earlier row, which has the cost.

    Args:
        use: What is added to.
        rows: Answered rows.
        shared: The number of these rows by custom_id.
    """
    is_first = pc.and_(
        rows["shared_with"].is_null(), pc.is_in(rows["custom_id"], pa.array([*shared], pa.string()))
    )
    first = rows.filter(is_first)
    columns = (
        first["custom_id"].to_pylist(),
        first["batch_id"].to_pylist(),
        picodollars_of(first["cost_usd"]).tolist(),
    )
    for custom_id, batch_id, amount in zip(*columns, strict=True):
        use.reused[batch_id] += shared[custom_id] * amount
