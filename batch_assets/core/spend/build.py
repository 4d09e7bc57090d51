"""Build the table of what was spent: a row for each UTC day, pipeline, partition, model, tier and workspace.

Nothing is added to an earlier table. Each run makes it from the response files and the ledger as they are, so it
is right after a refresh, an edited prompt, a cancel, an erasure or a lost ledger. What was read of a file is kept
until the file changes.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import DamagedFileError, UnboundedCostError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import leases, sent
from batch_assets.core.ledger.known_files import pipelines
from batch_assets.core.ledger.sent import SentBatch, TableInForce
from batch_assets.core.root import Root
from batch_assets.core.spend.amounts import FileAmounts
from batch_assets.core.spend.by_batch import (
    COMPARED,
    KNOWN,
    UNKNOWN,
    BatchRow,
    day_of,
    read_kept,
    write_kept,
)
from batch_assets.core.spend.duplicates import Comparison
from batch_assets.core.spend.spend_rows import spend_rows
from batch_assets.core.spend.spend_table import Labels, SpendRow, read_labels, write_spend
from batch_assets.core.spend.tables import FatesOf, TableUse, read_uses, use_of, write_uses
from batch_assets.core.store.digests import tails_of
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.most_cost import most_of
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.response_listing import response_versions
from batch_assets.core.store.responses import has_follow_ups, open_responses, paid_at_of, reading_responses

_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class SpendReport:
    """What a run of the table did.

    Attributes:
        rows: The rows of the table.
        read: The number of response files that were read.
        problems: Response files that cannot be read, as texts. Their amounts of an earlier run are kept.
    """

    rows: list[SpendRow]
    read: int
    problems: list[str]


def build_spend(root: Root, labels: Mapping[str, Labels] | None = None) -> SpendReport:
    """Write the table of what was spent.

    Args:
        root: The root.
        labels: The labels by pipeline. Other pipelines keep those that the last table has.

    Raises:
        BusyError: When another process writes it for too long.
    """
    with leases.hold(root.ledger, "spend", wait=_WAIT_SECONDS, work="the table of what was spent") as lease:
        run = _Run.of(root, read_kept(root.storage), read_uses(root.storage), may_write=True)
        by_batch, uses = run.batch_rows(), run.uses()
        rows = spend_rows(
            by_batch, run.batches, TableUse.sum(uses.values()), read_labels(root.storage) | dict(labels or {})
        )
        lease.check()
        write_uses(root.storage, uses)
        write_kept(root.storage, by_batch)
        write_spend(root.storage, rows)
        return SpendReport(rows, run.read, run.problems)


class SpendReader:
    """Reads what was spent as `build_spend` does, and writes nothing.

    What was read of a file is kept until the file changes, from the last table on.

    Args:
        root: The root.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._kept, self._uses = read_kept(root.storage), read_uses(root.storage)

    def read(self) -> SpendReport:
        """Return what was spent."""
        run = _Run.of(self._root, self._kept, self._uses, may_write=False)
        by_batch, self._uses = run.batch_rows(), run.uses()
        self._kept = defaultdict(list)
        for row in by_batch:
            self._kept[row.pipeline, row.batch_id].append(row)
        use = TableUse.sum(self._uses.values())
        return SpendReport(
            spend_rows(by_batch, run.batches, use, read_labels(self._root.storage)), run.read, run.problems
        )


class _Run:
    """One run.

    Args:
        root: The root.
        kept: What is known of response files, by pipeline and batch.
        kept_uses: What is known of results tables, by pipeline and partition.
        names: The pipelines.
        batches: What was sent.
        tables: The results tables.
        refreshing: The pipelines that have a refresh.
        may_write: Whether the index of answers may be brought up to date.

    Attributes:
        batches: The argument `batches`.
        read: See `SpendReport`.
        problems: See `SpendReport`.
    """

    def __init__(
        self,
        root: Root,
        kept: Mapping[tuple[str, str], list[BatchRow]],
        kept_uses: Mapping[tuple[str, str], TableUse],
        names: list[str],
        batches: list[SentBatch],
        tables: list[TableInForce],
        refreshing: set[str],
        may_write: bool,
    ) -> None:
        self._root, self._names, self._tables, self._may_write = root, names, tables, may_write
        self.batches, self.read, self.problems = batches, 0, list[str]()
        self._by_id = {batch.id: batch for batch in batches}
        self._kept, self._kept_uses = kept, kept_uses
        twice = {batch.pipeline for batch in batches if batch.may_be_repeated}
        self._with_duplicates = refreshing | twice
        # What was compared in the answers of each batch, of pipelines whose answers are.
        self._compared: dict[tuple[str, str], str] = {}

    @classmethod
    def of(
        cls,
        root: Root,
        kept: Mapping[tuple[str, str], list[BatchRow]],
        kept_uses: Mapping[tuple[str, str], TableUse],
        *,
        may_write: bool,
    ) -> _Run:
        """Return a run over what the ledger records now. See the class."""
        with root.ledger.read() as tx:
            return cls(
                root,
                kept,
                kept_uses,
                names=pipelines(tx),
                batches=sent.sent_batches(tx),
                tables=sent.tables_in_force(tx),
                refreshing=sent.refreshing_pipelines(tx),
                may_write=may_write,
            )

    def batch_rows(self) -> list[BatchRow]:
        """Return the rows of all batches: of the response files, and of batches without one."""
        rows: list[BatchRow] = []
        stored: set[str] = set()
        for pipeline in self._names:
            for name, its_rows in self._stored_rows(pipeline):
                stored.add(name.stem)
                rows += its_rows
        for batch in self.batches:
            if batch.id not in stored:
                rows.append(self._missing_row(batch))
        return rows

    def _stored_rows(self, pipeline: str) -> Iterable[tuple[ResponseName, list[BatchRow]]]:
        """Yield the rows of each response file of a pipeline. Files that are as they were are not read."""
        versions = {
            name: version
            for text, version in response_versions(self._root.storage, pipeline).items()
            if (name := ResponseName.parse(text)) is not None and name.batch_id is not None
        }
        rows = {name: self._kept.get((pipeline, name.stem), []) for name in sorted(versions, key=str)}
        new = [name for name, its in rows.items() if not its or its[0].version != versions[name]]
        is_related = pipeline in self._with_duplicates or _are_related(rows)
        if new and not is_related:
            rows |= {name: self._read(pipeline, name, versions[name]) or rows[name] for name in new}
            is_related = _are_related(rows)
        if is_related:
            self._compare(pipeline, rows, versions)
            self._compared |= {(pipeline, name.stem): its[0].duplicates for name, its in rows.items() if its}
        yield from rows.items()

    def _compare(
        self, pipeline: str, rows: dict[ResponseName, list[BatchRow]], versions: Mapping[ResponseName, str]
    ) -> None:
        """Compare the answers of response files that were not compared before with all to the same requests.

        Args:
            pipeline: The pipeline.
            rows: The rows of its response files, by name. Changed in place: those of files are read again of which
                an answer was replaced or followed since.
            versions: The versions of the files.
        """
        is_gone = not self._kept_answers[pipeline] <= {name.stem for name in rows}
        new = [name for name, its in rows.items() if is_gone or not its or not its[0].is_compared(versions[name])]
        if not new:
            return
        try:
            fates = self._comparison(pipeline).beside(new)
        except (DamagedFileError, FileNotFoundError) as error:
            changed = [name for name in new if not rows[name] or rows[name][0].version != versions[name]]
            rows |= {name: self._read(pipeline, name, versions[name]) or rows[name] for name in changed}
            self.problems += {str(error)}.difference(self.problems)
            return
        for name in rows.keys() & {*new, *fates}:
            its, fate = rows[name], fates.get(name)
            is_special = fate is not None and fate.any()
            mark = hashlib.sha256(fate.tobytes()).hexdigest()[:16] if is_special and fate is not None else COMPARED
            if its and its[0].version == versions[name] and mark == (its[0].duplicates or COMPARED):
                rows[name] = [replace(row, duplicates=mark) for row in its]
            else:
                rows[name] = self._read(pipeline, name, versions[name], fate, mark) or its

    @cached_property
    def _kept_answers(self) -> Mapping[str, set[str]]:
        """The ids of the batches whose answers were stored in the last run, by pipeline."""
        ids: dict[str, set[str]] = defaultdict(set)
        for (pipeline, batch_id), its in self._kept.items():
            if its[0].kind == KNOWN:
                ids[pipeline].add(batch_id)
        return ids

    def _read(
        self,
        pipeline: str,
        name: ResponseName,
        version: str,
        fates: NDArray[np.int8] | None = None,
        mark: str = "",
    ) -> list[BatchRow]:
        """Read a response file. Returns nothing if it is damaged or gone."""
        storage, prices = self._root.storage, self._root.settings.prices
        try:
            with (
                open_responses(storage, pipeline, name) as file,
                reading_responses(storage, pipeline, name),
            ):
                day = day_of(paid_at_of(file))
                amounts = FileAmounts.of(file, prices, fates, is_live=name.is_live)
                is_related = amounts.has_pruned or has_follow_ups(file)
        except (DamagedFileError, FileNotFoundError) as error:
            self.problems.append(str(error))
            return []
        self.read += 1
        state = version, mark, is_related
        rows = [
            BatchRow(pipeline, name.stem, model, KNOWN, day, of_model, of_model["cost_usd"], *state)
            for model, of_model in amounts.by_model.items()
        ]
        if amounts.unknown_requests:
            tails = {tail for digests in amounts.unknown for tail in tails_of(digests).tolist()}
            high = self._most(name.stem, tails, amounts.unknown_requests)
            unknown = Counter({"requests": amounts.unknown_requests})
            rows.append(BatchRow(pipeline, name.stem, "", UNKNOWN, day, unknown, high, *state))
        return rows

    def _missing_row(self, batch: SentBatch) -> BatchRow:
        """Return the row of a batch whose answers are not stored.

        The most it can cost is computed once. If nothing bounds it, other prices or another request file may.
        """
        kept = self._kept.get((batch.pipeline, batch.id), [])
        is_kept = len(kept) == 1 and kept[0].kind == UNKNOWN
        row = BatchRow(batch.pipeline, batch.id, "", UNKNOWN, day_of(batch.at))
        row.amounts, row.high = Counter({"requests": batch.requests}), kept[0].high if is_kept else None
        if row.high is None:
            row.version = f"{self._prices_mark} {self._request_file(batch).version()}"
            if not is_kept or kept[0].version != row.version:
                row.high = self._most_of_missing(batch)
        return row

    @cached_property
    def _prices_mark(self) -> str:
        table = self._root.settings.prices.table.model_dump_json()
        return hashlib.sha256(table.encode()).hexdigest()[:16]

    def _request_file(self, batch: SentBatch) -> StoredRequestFile:
        parts = submission_parts(batch.pipeline, batch.partition, batch.submission_id)
        return StoredRequestFile(self._root.storage, (*parts, batch.file_name))

    def _most_of_missing(self, batch: SentBatch) -> int | None:
        return batch.most if batch.is_live else self._most(batch.id, None, batch.requests)

    def _most(self, batch_id: str, tails: set[bytes] | None, requests: int) -> int | None:
        """Return the most that requests of a batch can cost, in picodollars; `None` if that is not known."""
        batch = self._by_id.get(batch_id)
        if batch is None:
            return None
        file, prices = self._request_file(batch), self._root.settings.prices
        way = {"writes_cache": batch.writes_cache, "is_live": batch.is_live}
        try:
            record = ErasedRecord.read(self._root.storage, batch.pipeline)
            erased = record.worst_cases if record is not None else {}
            return most_of(file, prices, requests, tails, **way, erased=erased)
        except (FileNotFoundError, DamagedFileError, UnboundedCostError):
            return None

    def uses(self) -> dict[tuple[str, str], TableUse]:
        """Return what the results tables make of the answers. A table that is as it was is not read."""
        submissions: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for batch in self.batches:
            submissions[batch.pipeline, batch.partition][batch.id] = batch.submission_id
        uses: dict[tuple[str, str], TableUse] = {}
        for table in self._tables:
            key = table.pipeline, table.partition
            its = self._kept_uses.get(key)
            if its is None or table.version is None or its.version != self._version(table, its):
                its = use_of(self._root.storage, *key, submissions[key], self._fates_of(table.pipeline))
                its.version = self._version(table, its)
            uses[key] = its
        return uses

    def _version(self, table: TableInForce, use: TableUse) -> str:
        """Return what identifies a table and, as far as answers are compared, what became of its answers since."""
        marks = [self._compared.get((table.pipeline, batch_id), "") for batch_id in sorted(use.rows)]
        if not any(marks):
            return table.version or ""
        return f"{table.version or ''} {hashlib.sha256('/'.join(marks).encode()).hexdigest()[:16]}"

    def _fates_of(self, pipeline: str) -> FatesOf | None:
        """Return how to ask which answers of a pipeline are in force; `None` if all are that a table has."""
        if not any(of_pipeline == pipeline for of_pipeline, _ in self._compared):
            return None
        return self._comparison(pipeline).fates_of

    def _comparison(self, pipeline: str) -> Comparison:
        return Comparison(self._root, pipeline, may_write=self._may_write)


def _are_related(rows: Mapping[ResponseName, list[BatchRow]]) -> bool:
    """Whether the answers of response files have to be compared, as far as the files show."""
    return any(its[0].is_related for its in rows.values() if its)
