"""The digests beside a request file: a copy that is checked, and made again from the request file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batch_assets.core.io.names import PartName
from batch_assets.core.io.storage import Storage
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FileState
from batch_assets.core.store.digest_files import read_digests
from batch_assets.core.store.digests import Digests, custom_ids, pack
from batch_assets.core.store.in_flight import known_digests
from batch_assets.core.store.part_writer import PartWriter
from batch_assets.core.store.request_lines import body_bytes, make_lines

FOLDER = ("asked", "requests", "s")
DIGESTS = pack([bytes([number, *range(15)]) for number in range(5)] + [bytes(16), b"x" * 15 + b"\0"])


def written(storage: Storage, *, with_digests: bool = True) -> RequestFile:
    """A request file as the first stage writes it, and its line in the ledger."""
    lines = make_lines(custom_ids(range(len(DIGESTS)), DIGESTS, "mmmmmm"), [b"{}"] * len(DIGESTS))
    with PartWriter(storage, FOLDER, 1, (100, 10_000), iter([PartName(0)]).__next__) as writer:
        writer.add(lines[:3], DIGESTS[:3] if with_digests else None)
        writer.add(lines[3:], DIGESTS[3:] if with_digests else None)
    (entry,) = writer.written
    content = b"".join(lines)
    assert entry.checksum == hashlib.sha256(content).hexdigest()
    return RequestFile(
        "s/part-00000.jsonl", "s", "asked", "", entry.name, entry.requests, body_bytes(len(content)), 1,
        FileState.READY, 0.0, None, None, None, None, entry.checksum, None,
    )  # fmt: skip


def same(digests: Digests | None) -> bool:
    return digests is not None and np.array_equal(digests, DIGESTS)


@pytest.mark.parametrize("with_digests", [True, False])
def test_they_are_written_with_the_request_file(tmp_path: Path, with_digests: bool) -> None:
    storage = Storage(str(tmp_path))
    file = written(storage, with_digests=with_digests)
    beside = tmp_path.joinpath(*FOLDER, "part-00000.digests")
    assert beside.stat().st_size == 56 + 16 * len(DIGESTS)
    assert oct(beside.stat().st_mode & 0o777) == "0o600"
    tmp_path.joinpath(*FOLDER, file.name).unlink()  # the request file is not read
    assert same(read_digests(storage, file)) and same(known_digests(storage, file).digests)


def flip(position: int) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)

    return harm


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-16])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARM = {
    "gone": os.unlink, "mark": flip(0), "checksum_of_the_file": flip(20), "checksum": flip(45), "digest": flip(60),
    "cut": cut, "empty": empty, "folder": replace_by_a_folder,
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_missing_or_damaged_ones_are_made_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    storage = Storage(str(tmp_path))
    file, beside = written(storage), tmp_path.joinpath(*FOLDER, "part-00000.digests")
    before = beside.read_bytes()
    harm(beside)
    assert read_digests(storage, file) is None
    assert same(known_digests(storage, file).digests)
    assert read_digests(storage, file) is None  # without the lease on the requests, nothing is written
    if beside.is_dir():
        beside.rmdir()
    assert same(known_digests(storage, file, own_partition="of another lease").digests)
    assert read_digests(storage, file) is None
    assert same(known_digests(storage, file, own_partition=file.partition).digests)
    assert beside.read_bytes() == before


def other_checksum(file: RequestFile) -> RequestFile:
    return replace(file, checksum="00" * 32)


def more_requests(file: RequestFile) -> RequestFile:
    return replace(file, requests=file.requests + 1)


def no_checksum(file: RequestFile) -> RequestFile:
    return replace(file, checksum=None)


@pytest.mark.parametrize("change", [other_checksum, more_requests, no_checksum])
def test_those_of_another_content_do_not_count(
    tmp_path: Path, change: Callable[[RequestFile], RequestFile]
) -> None:
    """After an erasure, or in the ledger of an earlier version, which has no checksums."""
    storage = Storage(str(tmp_path))
    file, beside = written(storage), tmp_path.joinpath(*FOLDER, "part-00000.digests")
    beside_before = beside.read_bytes()
    assert read_digests(storage, change(file)) is None
    assert same(known_digests(storage, change(file), own_partition=file.partition).digests)
    assert beside.read_bytes() == beside_before


def test_a_file_that_is_not_as_it_was_written_gets_none(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    file, folder = written(storage), tmp_path.joinpath(*FOLDER)
    (folder / "part-00000.digests").unlink()
    text = (folder / file.name).read_bytes()
    (folder / file.name).write_bytes(text.replace(b'"params":{}', b'"params":[]', 1))
    assert same(known_digests(storage, file, own_partition=file.partition).digests)
    assert not (folder / "part-00000.digests").exists()
