"""Erase rows of a pipeline: from all files under the root, the ledger, the sink and the batches at the API.

First the keys go on record, so that no build sends them from then on. The rows leave the indexes last, because the
indexes show where everything else is. So a killed run is simply repeated: the next one finds what is left. A
request that is in flight is not touched, because its file proves whose batch it is. Its row is erased once its
answer is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from batch_assets.core.erase import tables
from batch_assets.core.erase.found_rows import FoundRows, KeyColumn, find_rows, key_types, manifests_of
from batch_assets.core.erase.held_files import HeldFiles, find_files
from batch_assets.core.erase.named_keys import NamedKeys
from batch_assets.core.erase.own_words import is_own_word, search_values
from batch_assets.core.erase.provider import delete_batches
from batch_assets.core.erase.replacement import ERASED, Replacements
from batch_assets.core.erase.report import EraseReport
from batch_assets.core.erase.request_files import ErasedRequests
from batch_assets.core.erase.responses import remove_copies, rewrite_responses
from batch_assets.core.erase.search import (
    Needles,
    in_json,
    is_distinctive,
    is_unlike_words,
    search,
    search_ledger,
)
from batch_assets.core.errors import BatchAssetsError, LedgerUnavailableError, SinkError
from batch_assets.core.io.layout import results_parts
from batch_assets.core.ledger import Lease, erasure, index_removal, leases, submissions
from batch_assets.core.ledger.known_files import pipelines
from batch_assets.core.ledger.request_leases import hold_pipeline
from batch_assets.core.pipeline.dataset import ROW_NUMBER
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.garbage import partitions_on_disk, remove_garbage
from batch_assets.core.results.live_answers import store_live_answers
from batch_assets.core.results.write import write_results
from batch_assets.core.root import Root
from batch_assets.core.sink.erase import erase_from_sink
from batch_assets.core.sink.write import write_sink
from batch_assets.core.store.digests import pack, slug
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.missing_responses import with_readable_responses
from batch_assets.core.store.pipeline_outcomes import drop_kept
from batch_assets.core.store.refreshes import outcomes_of
from batch_assets.core.text import nothing_submitted


class EraseError(BatchAssetsError):
    """Rows cannot be erased. Nothing was changed."""


def erase(
    root: Root, name: str, keys: Sequence[str], pipeline: Pipeline | None = None, *, is_later: bool = False
) -> EraseReport:
    """Erase rows of a pipeline, in all its partitions. Repeating it changes nothing, and finishes a killed run.

    Args:
        root: The root.
        name: The name of the pipeline.
        keys: The row keys, as texts. A time or a number may be written in any form of its type.
        pipeline: The pipeline, for its sink and its own columns of answers; `None` if the project
            no longer has it.
        is_later: A run of the results stage finishes what had to wait. It does not wait for other processes, and
            a sink that cannot be reached stops it, because no one would repeat it.

    Returns:
        What was done and what is left. A key that is in flight is on record, and is erased later.

    Raises:
        EraseError: When the pipeline is unknown, or its rows have no keys.
        BusyError: When another process works on the pipeline's requests, or erases, for too long.
        DamagedFileError: When a response file or the record cannot be read, and no backup is left at the API.
    """
    keys = list(dict.fromkeys(keys))
    patience = 0.0 if is_later else leases.PATIENCE
    with leases.hold(root.ledger, f"erase:{name}", wait=patience, work=f"erasing from {name}", pipeline=name):
        manifests, _ = manifests_of(root.storage, name)
        if not manifests and pipeline is None:
            with root.ledger.read() as tx:
                raise EraseError(nothing_submitted(name, root.storage.url, pipelines(tx)))
        key = key_column(manifests, pipeline)
        if key.column == ROW_NUMBER:
            raise EraseError(
                f"the rows of {name} have no key of their own: a row number names another row as soon as the "
                "dataset changes. Name the column that identifies a row in dataset.key, and try again"
            )
        named = NamedKeys.of(keys, key_types(root.storage, manifests, key))
        record = ErasedRecord.read(root.storage, name) or ErasedRecord.new()
        record = record.with_keys(named.texts, key.column, named.types)
        record.write(root.storage, name)
        with hold_pipeline(root.ledger, name, wait=patience) as lease:
            erasure_ = _Erasure(root, name, named.texts, named.types, key, pipeline, record, lease, is_later)
            erasure_.run()
        erasure_.report.unknown = named.unknown(erasure_.report.unknown)
        erasure_.report.problems += named.problems(erasure_.report.unknown, name)
        return erasure_.report


def key_column(manifests: Sequence[Manifest], pipeline: Pipeline | None) -> KeyColumn:
    """Return the column by which rows are named now: that of the pipeline file, or of the newest submission."""
    if pipeline is not None:
        return KeyColumn(pipeline.config.dataset.key_name, pipeline.config.dataset.key_column)
    newest = max(manifests, key=lambda manifest: manifest.submission)
    return KeyColumn(newest.key, newest.key)


@dataclass
class _Erasure:
    """One run, with the lease on the pipeline's requests.

    Attributes:
        root: The root.
        name: The name of the pipeline.
        keys: The row keys, without those that are in flight.
        types: The types of row keys.
        key: The column of the row key.
        pipeline: The pipeline; `None` if the project no longer has it.
        record: The record, which has the keys.
        lease: The lease.
        is_later: See `erase`.
        report: What was done so far.
        renamed: The new custom_id of each shared request, and "erased" for the others, by old custom_id.
    """

    root: Root
    name: str
    keys: list[str]
    types: Sequence[pa.DataType]
    key: KeyColumn
    pipeline: Pipeline | None
    record: ErasedRecord
    lease: Lease
    is_later: bool
    report: EraseReport = field(init=False)
    renamed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.report = EraseReport(self.name)

    def run(self) -> None:
        """Erase the rows that are not in flight, then search for what is left of them."""
        self.root.catch_up(self.name, lease=self.lease)
        self.report.problems += store_live_answers(self.root, self.name, wait=leases.PATIENCE)
        for partition in partitions_on_disk(self.root, self.name):
            remove_garbage(self.root, self.name, partition)
        # A damaged response file is downloaded again: until then its requests are in flight.
        _, set_aside = with_readable_responses(self.root, lambda: outcomes_of(self.root, self.name))
        targets, held_files = self._find()
        self.report.problems += [*set_aside, *targets.problems]
        replacements = Replacements(self.record.salt, self.keys, targets.shared)
        self._erase_requests(targets, held_files, replacements)
        self._erase_answers(targets, replacements)
        self._erase_texts(targets.slugs)
        self._erase_from_sink()
        with_targets = {submission.partition for submission in targets.submissions}
        self._join({submission.partition for submission in targets.sharing} - with_targets)
        for submission in targets.submissions:
            self.lease.check()
            tables.remove_from_submission(self.root, submission, self.keys)
        self._erase_results(with_targets)
        self.record = self.record.without_waiting(self.keys)
        self.record.write(self.root.storage, self.name)
        self._delete_batches()
        self._search(targets.slugs)

    def _find(self) -> tuple[FoundRows, HeldFiles]:
        """Find the rows and their files, and leave out the keys that are in flight."""
        manifests, problems = manifests_of(self.root.storage, self.name)
        targets = find_rows(self.root.storage, manifests, self.key, self.keys)
        held_files = find_files(self.root, self.name, targets)
        self.report.unknown = [key for at, key in enumerate(self.keys) if at not in targets.known]
        if held_files.blocked:
            self.report.waiting = {self.keys[at]: reasons for at, reasons in held_files.blocked.items()}
            self.keys = [key for key in self.keys if key not in self.report.waiting]
            targets = find_rows(self.root.storage, manifests, self.key, self.keys)
            held_files = find_files(self.root, self.name, targets)
        self.report.problems += problems
        self.report.submissions = len(targets.submissions)
        self.report.shared = len(targets.shared)
        self.report.requests = len(targets.requests) - len(targets.shared)
        return targets, held_files

    def _erase_requests(self, targets: FoundRows, held_files: HeldFiles, replacements: Replacements) -> None:
        requests = ErasedRequests(self.root, targets.digests, replacements, self.renamed)
        batch_ids = requests.batches_with(held_files)
        if not set(batch_ids) <= set(self.record.batches):
            self.record = self.record.with_batches([*self.record.batches, *batch_ids])
            self.record.write(self.root.storage, self.name)
        if worst_cases := requests.worst_cases_in(held_files):  # what takes their place tells nothing of it
            self.record = self.record.with_worst_cases(worst_cases)
            self.record.write(self.root.storage, self.name)
        for file in held_files.unsent:
            self.lease.check()
            requests.replace_unsent(file)
        for held_file in held_files.files:
            self.lease.check()
            self.report.request_files += requests.rewrite(held_file)

    def _erase_answers(self, targets: FoundRows, replacements: Replacements) -> None:
        if len(targets.requests):
            self.report.answers = rewrite_responses(
                self.root, self.name, targets.digests, replacements, self.renamed, self.lease.check
            )
        with self.root.ledger.write(self.name) as tx:
            self.lease.confirm(tx)
            index_removal.erase(tx, self.name, pack(set(targets.requests) - set(targets.shared)))
        drop_kept(self.root, self.name)
        self.report.problems += remove_copies(self.root, self.name)

    def _erase_texts(self, slugs: set[str]) -> None:
        """Erase the custom_ids from texts in the ledger, and the keys as far as they differ from other words.

        After a kill, the files no longer have the custom_ids. So the starts of custom_ids are replaced as well.

        Args:
            slugs: The starts of custom_ids that rows of other keys have too.
        """
        texts = {old: new for old, new in self.renamed.items() if old != new}
        named = [key for key in self.keys if is_unlike_words(key)]
        texts |= {form: ERASED for key in named for form in (key, *in_json(key))}
        starts = {slug(key) for key in self.keys} - slugs
        texts |= {start: ERASED for start in starts if is_unlike_words(start.strip("_"))}
        if texts:
            with self.root.ledger.write() as tx:
                self.lease.confirm(tx)
                erasure.overwrite_freed(tx)
                erasure.replace_texts(tx, texts)

    def _erase_from_sink(self) -> None:
        if self.pipeline is None or self.pipeline.config.sink is None or not self.keys:
            return
        shared = {old: new for old, new in self.renamed.items() if new not in (old, ERASED)}
        try:
            self.report.sink_rows += erase_from_sink(
                self.root, self.pipeline, self.key.name, self.keys, shared, self.types
            )
        except SinkError as error:
            if self.is_later:
                raise
            self.report.problems.append(str(error))

    def _erase_results(self, partitions: set[str]) -> None:
        """Write the tables of some partitions again, and erase the rows from all others that have them."""
        if not self.keys:
            return
        with_rows = {tables.partition_of(parts) for parts in tables.results_with(self.root, self.name, self.keys)}
        joined = partitions | with_rows
        self._join(joined)
        for parts in tables.results_with(self.root, self.name, self.keys, self.report.problems):
            tables.remove_from_results(self.root, parts, self.keys)
            self.report.tables += 1
        self._erase_from_sink()  # a run may have copied the former table meanwhile
        self._write_sink(joined)

    def _join(self, partitions: set[str]) -> None:
        answers = self.pipeline.own_answers if self.pipeline is not None else None
        for partition in sorted(partitions):
            if not self.root.storage.exists(*results_parts(self.name, partition)):
                continue
            try:
                is_written = write_results(self.root, self.name, partition, answers=answers) is not None
            except BatchAssetsError as error:
                self.report.problems.append(str(error))
            else:
                self.report.tables += is_written

    def _write_sink(self, partitions: set[str]) -> None:
        """Copy complete tables into the sink again: a cost that an erased row had is now on another row."""
        if self.pipeline is None or self.pipeline.config.sink is None or self.report.problems:
            return
        for partition in sorted(partitions):
            with self.root.ledger.read() as tx:
                newest = submissions.newest(tx, self.name, partition)
            if newest is not None and newest.announced_at is not None and newest.final_at is not None:
                try:
                    write_sink(self.root, self.pipeline, partition, newest.id)
                except SinkError as error:
                    self.report.problems.append(str(error))

    def _delete_batches(self) -> None:
        """Delete the batches at the API that hold erased rows, also those of earlier runs."""
        if not self.record.batches:
            return
        self.report.deleted, self.report.kept = delete_batches(self.root, self.record.batches, self.lease)
        self.record = self.record.with_batches(self.report.kept)
        self.record.write(self.root.storage, self.name)

    def _search(self, slugs: set[str]) -> None:
        """Search everything for the erased keys, after SQLite has overwritten the space that it freed.

        Args:
            slugs: The slugs of the keys that rows with other keys have too.
        """
        if not self.keys:
            return
        try:
            is_overwritten = self.root.ledger.overwrite_free_space()
        except LedgerUnavailableError:
            is_overwritten = False
        if not is_overwritten:
            self.report.problems.append("other processes use the ledger: erased values may still be in its files")
        self.report.unsearched = [key for key in self.keys if not is_distinctive(key)]
        custom_ids = [old for old, new in self.renamed.items() if old != new]
        own_words = [key for key in self.keys if is_own_word(key)]
        others = [key for key in self.keys if key not in own_words]
        if (needles := Needles.of(others, custom_ids, slugs)) is not None:
            self._add_found(search(self.root, needles), search_ledger(self.root, needles))
        if (needles := Needles.of(own_words, [], slugs)) is not None:
            with self.root.ledger.read() as tx:
                of_ledger = erasure.columns_naming(tx, needles.texts)
            self._add_found(search_values(self.root, needles), of_ledger)

    def _add_found(self, files: Sequence[tuple[str, ...]], of_ledger: Sequence[str]) -> None:
        """Report the files under the root, and the files or columns of the ledger, that have a key."""
        for parts in files:
            of_another = parts[0] != self.name and len(parts) > 2
            where = self.report.elsewhere if of_another else self.report.left
            uri = self.root.storage.uri(*parts)
            if uri not in where:
                where.append(uri)
        self.report.left += [where for where in of_ledger if where not in self.report.left]
