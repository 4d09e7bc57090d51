"""Take the requests of erased rows out of request files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np

from batch_assets.core.erase.held_files import HeldFile, HeldFiles
from batch_assets.core.erase.replacement import ERASED, Replacements, padded
from batch_assets.core.errors import BusyError, DamagedFileError, MissingFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import PartName, SubmissionId
from batch_assets.core.ledger import batches, erasure, files, leases
from batch_assets.core.ledger.records import RequestFile, RequestFileEntry
from batch_assets.core.root import Root
from batch_assets.core.store.breakpoints import Breakpoint
from batch_assets.core.store.digest_files import remove_digests
from batch_assets.core.store.digests import Digests, tail_of
from batch_assets.core.store.erased import WorstCases
from batch_assets.core.store.manifest import Manifest, PartEntry
from batch_assets.core.store.most_cost import worst_cases
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import body_bytes, custom_id_of, make_lines, own_tail, params_of
from batch_assets.core.store.resent import ResentTrace

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ErasedRequests:
    """Replaces the requests of erased rows in request files.

    Attributes:
        root: The root.
        digests: The digests of the requests: S16, shape (n,), sorted.
        replacements: Makes the replacements.
        renamed: Filled with the custom_ids of the requests, each with the text that replaces it.
    """

    root: Root
    digests: Digests
    replacements: Replacements
    renamed: dict[str, str]

    def batches_with(self, held_files: HeldFiles) -> list[str]:
        """Return the ids of the batches whose request file holds one of the requests."""
        with self.root.ledger.read() as tx:
            return [
                batch.id
                for file in held_files.files
                if file.file is not None and self._is_in(file)
                for batch in batches.of_file(tx, file.id)
            ]

    def worst_cases_in(self, held_files: HeldFiles) -> dict[str, WorstCases]:
        """Return the most that each request can cost that is to be erased, by the custom_id of its replacement."""
        wanted, worst = self._wanted, dict[str, WorstCases]()
        for file in held_files.files:
            for line in file.stored.lines() if self._is_in(file) else ():
                digest = wanted.get(own_tail(line))
                if digest is not None and not self.replacements.is_shared(digest):
                    blank = self.replacements.blank(digest, custom_id_of(line) or "", file.headers)
                    worst[blank.custom_id] = worst_cases(self.root.settings.prices, params_of(line))
        return worst

    @cached_property
    def _wanted(self) -> dict[bytes, bytes]:
        """The digests of the requests by the ends of their custom_ids."""
        return {tail_of(digest): digest for digest in map(padded, self.digests.tolist())}

    def replace_unsent(self, file: RequestFile) -> None:
        """Replace an unsent file by one without the requests. Shared requests stay.

        Raises:
            BusyError: When another process is sending it.
        """
        stored = StoredRequestFile.of(self.root.storage, file)
        work = f"the request file {file.id}"
        with leases.hold(self.root.ledger, files.lease_name(file.id), work=work, pipeline=file.pipeline) as lease:
            with self.root.ledger.read() as tx:
                current = files.by_id(tx, file.id)
            remaining = self._write_remaining(current, stored)
            with self.root.ledger.write(file.pipeline) as tx:
                lease.confirm(tx)
                is_replaced = erasure.replace_unsent(tx, file, remaining)
        if not is_replaced:
            if remaining is not None:
                for name in (remaining.name, PartName.parse(remaining.name).resent):
                    self.root.storage.remove(*stored.parts[:-1], name)
                self._list(file, None, remaining.name)
            raise BusyError(f"another run is busy with {work}; repeat this one when that is done")

    def _write_remaining(self, file: RequestFile, stored: StoredRequestFile) -> RequestFileEntry | None:
        """Write the remaining requests into a new file of the submission. Returns `None` if none remain."""
        folder = submission_parts(file.pipeline, file.partition, file.submission_id)
        name, size, requests, hash_ = self._free_name(folder), 0, 0, sha256()
        with self.root.storage.scratch_file(self.root.storage.path(*folder, str(name))) as scratch:
            with scratch.open("wb") as target:
                for line in self._lines(stored, {}, keep_blank=False):
                    target.write(line)
                    hash_.update(line)
                    size, requests = size + len(line), requests + 1
            if not requests:
                return None
            with self.root.ledger.read() as tx:
                headers = files.headers_of(tx, file) if file.headers is not None else None
            entry = PartEntry(
                name=str(name),
                requests=requests,
                bytes=body_bytes(size),
                attempt=file.attempt,
                headers=headers,
                checksum=hash_.hexdigest(),
                hold=file.hold,
                stub=str(SubmissionId(file.submission_id).file(name)) if file.stub == file.id else file.stub,
                breakpoint=Breakpoint.of(file),
            )
            # Before the file: a rebuilt ledger must not take one that was held for one that anything may send.
            self._list(file, entry, entry.name)
            ResentTrace(stored).copy_to(StoredRequestFile(self.root.storage, (*folder, str(name))))
            self.root.storage.publish(scratch, self.root.storage.path(*folder, str(name)))
        return entry.ledger_entry(SubmissionId(file.submission_id), file.pipeline, file.partition)

    def _list(self, file: RequestFile, entry: PartEntry | None, name: str) -> None:
        """Write the entry of a new file into the manifest of a file's submission; with `None`, take it out."""
        storage = self.root.storage
        try:
            manifest = Manifest.read(storage, file.pipeline, file.partition, file.submission_id)
        except (MissingFileError, DamagedFileError):  # a rebuilt ledger holds all files of such a submission
            return
        new_id = str(SubmissionId(file.submission_id).file(PartName.parse(name)))
        # The file may be a stub, for which others wait.
        old_stub, stub = (file.id, new_id) if entry is not None else (new_id, file.id)
        listed = [
            each.model_copy(update={"stub": stub}) if each.stub == old_stub else each
            for each in manifest.files
            if each.name != name
        ]
        listed += [entry] if entry is not None else []
        changed = {"files": listed, "written": manifest.requests_written}
        pilot = manifest.pilot
        if pilot is not None and file.id in (pilot.files or ()):
            ids = [each for each in pilot.files or () if each != new_id] + ([new_id] if entry is not None else [])
            changed["pilot"] = pilot.model_copy(update={"files": ids})
        manifest.model_copy(update=changed).write(storage)

    def _free_name(self, folder: tuple[str, ...]) -> PartName:
        used = [name.ordinal for text in self.root.storage.names(*folder) if (name := PartName.of_file(text))]
        return PartName(max(used) + 1)

    def rewrite(self, held_file: HeldFile) -> bool:
        """Replace the requests in a settled file, and record its new content. Returns whether it had any."""
        is_in = self._is_in(held_file)
        if is_in:
            remove_digests(self.root.storage, held_file.stored.parts[:-1], held_file.name)
            with self.root.storage.write(*held_file.stored.parts) as scratch, scratch.open("wb") as target:
                target.writelines(self._lines(held_file.stored, held_file.headers, keep_blank=True))
        self._record_content(held_file)
        return is_in

    def _is_in(self, held_file: HeldFile) -> bool:
        return bool(np.isin(held_file.stored.digests(), self.digests).any())

    def _lines(self, stored: StoredRequestFile, headers: dict[str, str], *, keep_blank: bool) -> Iterator[bytes]:
        """Yield the lines of a file with the requests replaced.

        Args:
            stored: The file.
            headers: The headers of its requests.
            keep_blank: Keep the positions of requests that no other row has.
        """
        wanted = self._wanted
        for line in stored.lines():
            digest = wanted.get(own_tail(line))
            if digest is None:
                yield line
                continue
            old = custom_id_of(line) or ""
            if self.replacements.is_shared(digest):
                self.renamed[old] = custom_id = self.replacements.custom_id(digest, old)
                yield from make_lines([custom_id.encode()], [params_of(line)])
                continue
            self.renamed[old] = ERASED
            if keep_blank:
                blank = self.replacements.blank(digest, old, headers)
                yield from make_lines([blank.custom_id.encode()], [blank.params])

    def _record_content(self, held_file: HeldFile) -> None:
        """Write size and checksum of a file into the manifest and the ledger, where they differ."""
        hash_, file_bytes = sha256(), 0
        with self.root.storage.open(*held_file.stored.parts) as file:
            while chunk := file.read(_CHUNK):
                hash_.update(chunk)
                file_bytes += len(chunk)
        size, checksum = body_bytes(file_bytes), hash_.hexdigest()
        storage, manifest = self.root.storage, held_file.manifest
        current = manifest.read(storage, manifest.pipeline, manifest.partition, manifest.submission)
        entries = [
            entry.model_copy(update={"bytes": size, "checksum": entry.checksum and checksum})
            if entry.name == str(held_file.name)
            else entry
            for entry in current.files
        ]
        if entries != current.files:
            current.model_copy(update={"files": entries}).write(storage)
        recorded = held_file.file
        if recorded is not None and (recorded.bytes, recorded.checksum) != (size, recorded.checksum and checksum):
            with self.root.ledger.write(recorded.pipeline) as tx:
                erasure.rewritten(tx, recorded, size, recorded.checksum and checksum)
