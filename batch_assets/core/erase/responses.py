"""Take the answers of erased rows out of the response store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.erase.found_rows import is_among
from batch_assets.core.erase.replacement import ERASED, Replacements
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Transaction, batches, files, leases
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.kept_usage import usage_in
from batch_assets.core.store.missing_responses import SET_ASIDE
from batch_assets.core.store.responses import open_responses, reading_responses
from batch_assets.core.store.rewriting import rewrite_file

# The columns that an erased answer keeps: its batch and its type, so that the counts of the batch still agree, and
# what it cost, so that what was spent stays as it is.
_KEPT = (
    "result_type",
    "error_type",
    "stop_reason",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "thinking_tokens",
    "cost_usd",
    "live_cost_usd",
    "batch_id",
    "attempts",
    "ended_at",
)


def rewrite_responses(
    root: Root,
    pipeline: str,
    digests: Digests,
    replacements: Replacements,
    renamed: dict[str, str],
    check: Callable[[], None],
) -> int:
    """Erase the answers to some requests, in every response file that has one.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        digests: The digests of the requests: S16, shape (n,), sorted.
        replacements: Makes the replacements.
        renamed: Filled with the custom_ids of the requests, each with the text that replaces it.
        check: Called before each file is replaced. It may raise.

    Returns:
        The number of answers that were erased or changed.

    Raises:
        BusyError: When another process collects the same batch.
        DamagedFileError: When a response file cannot be read.
    """
    count = 0
    for name in filter(None, map(ResponseName.parse, root.storage.names(pipeline, "responses"))):
        with open_responses(root.storage, pipeline, name) as file, reading_responses(root.storage, pipeline, name):
            is_in = is_among(file.read(columns=["digest"], use_threads=False)["digest"], digests).any()
        if is_in:
            with root.ledger.read() as tx:
                answers = _Answers(digests, replacements, renamed, _headers(tx, name))
            rewrite_file(root, pipeline, name, answers.erase_from, check)
            count += answers.count
    return count


@dataclass
class _Answers:
    """The answers to erase, and the progress in one response file.

    Attributes:
        digests: See `rewrite_responses`.
        replacements: See `rewrite_responses`.
        renamed: See `rewrite_responses`.
        headers: The headers of the requests that the file answers.
        count: The number of answers so far.
    """

    digests: Digests
    replacements: Replacements
    renamed: dict[str, str]
    headers: dict[str, str]
    count: int = 0

    def erase_from(self, table: pa.Table) -> pa.Table:
        """Return a row group of the response file with the answers erased."""
        mask = is_among(table["digest"], self.digests)
        if not mask.any():
            return table
        rows = table.filter(pa.array(mask)).to_pylist()
        for row in rows:
            _erase(row, self)
        return _with_rows(table, mask, pa.Table.from_pylist(rows, schema=table.schema))


def _headers(tx: Transaction, name: ResponseName) -> dict[str, str]:
    """Return the headers of the requests that a response file answers; empty if the ledger does not know them."""
    file_id = str(name.refused) if name.refused is not None else None
    if name.asked_live is not None:
        file_id = str(name.asked_live[0])
    elif name.batch_id is not None:
        batch = batches.by_id(tx, name.batch_id)
        file_id = batch.file_id if batch is not None else None
    file = files.known(tx, file_id) if file_id is not None else None
    return files.headers_of(tx, file) if file is not None else {}


def _erase(row: dict[str, Any], answers: _Answers) -> None:
    """Replace what shows the erased row in a response. In a shared response that is only the custom_id."""
    digest, old = row["digest"], row["custom_id"]
    answers.count += 1
    if answers.replacements.is_shared(digest):
        if old is not None:
            answers.renamed[old] = row["custom_id"] = new = answers.replacements.custom_id(digest, old)
            if row["response_json"] is not None:  # the whole line, if it could not be stored in columns
                row["response_json"] = row["response_json"].replace(old, new)
        return
    if old is not None:
        answers.renamed[old] = ERASED
    blank = answers.replacements.blank(digest, old or "", answers.headers)
    usage = usage_in(row["response_json"])
    why = row["error_message"] if row["result_type"] == ResultType.CANCELED else None  # it was never collected
    row |= {name: None for name in row if name not in _KEPT}
    row |= {"response_json": usage, "error_message": why}
    row |= {"digest": blank.digest, "custom_id": blank.custom_id}


def _with_rows(table: pa.Table, mask: NDArray[np.bool_], rows: pa.Table) -> pa.Table:
    """Return a table with other rows at some positions.

    Args:
        table: n rows.
        mask: Which of them are replaced: bool, shape (n,).
        rows: The rows in their place, in order.
    """
    order = np.argsort(np.concatenate([np.flatnonzero(~mask), np.flatnonzero(mask)]))
    return pa.concat_tables([table.filter(pa.array(~mask)), rows]).take(pa.array(order))


def remove_copies(root: Root, pipeline: str) -> list[str]:
    """Remove damaged response files that were set aside, and what killed downloads left.

    Returns:
        A text about each one that may hold an erased answer and has to stay.
    """
    problems = []
    names = set(root.storage.names(pipeline, "responses"))
    for name in sorted(names):
        if name.endswith(SET_ASIDE):
            if name.removesuffix(SET_ASIDE) in names:  # downloaded again
                root.storage.remove(pipeline, "responses", name)
            else:
                uri = root.storage.uri(pipeline, "responses", name)
                problems.append(f"{uri} is damaged and may hold the row, but it is all that is left of its batch")
    for scratch in root.storage.leftovers(pipeline, "responses"):
        batch = scratch.removeprefix(".").partition(".parquet")[0]
        lease = leases.try_take(root.ledger, batches.lease_name(batch), pipeline=pipeline)
        if lease is None:
            problems.append(f"{root.storage.uri(pipeline, 'responses', scratch)} is being written")
            continue
        with lease:
            root.storage.remove(pipeline, "responses", scratch)
    return problems
