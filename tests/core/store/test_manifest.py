"""Manifests and receipts: the same bytes as in every earlier version, and errors that name the damaged field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.api.objects import COUNTS, BatchObject
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.json_files import read_document
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.manifest import Manifest, PartEntry
from batch_assets.core.store.receipt import Receipt

FIRST: dict[str, Any] = {
    "pipeline": "p",
    "partition": "de",
    "submission": "s",
    "key": "id",
    "headers": {"anthropic-beta": "one"},
    "output_schema": None,
    "max_attempts": 3,
    "rows": 4,
    "rejected": 1,
    "requests": 3,
    "files": [{"name": "part-00000.jsonl", "requests": 3, "bytes": 99, "attempt": 1}],
}
"""A manifest of the first version."""

EVERYTHING: dict[str, Any] = {
    "pipeline": "p",
    "partition": "de",
    "division": {"kind": "daily", "column": "day"},
    "submission": "s",
    "created_at": 1795858200.25,
    "dataset": "data/ä.csv",
    "key": "id",
    "carried": {"text": "review"},
    "params": {"model": "m", "messages": [{"role": "user", "content": "{{ text }} – ü"}], "top_k": None},
    "headers": {},
    "betas": ["{{ beta }}"],
    "header_sets": [{"anthropic-beta": "one"}, {}],
    "render_request": "shop.shorten",
    "rendering": 2,
    "bounded_schema": {"type": "object"},
    "fresh_after": 1795858100.0,
    "waits": ["r/part-00000.jsonl"],
    "left_out": 2,
    "output_schema": {"type": "object", "properties": {"b": {}, "a": {}}},
    "output_tool": None,
    "tool_calls": False,
    "max_attempts": 3,
    "max_requests": 10,
    "max_bytes": 1000,
    "rows": 4,
    "rejected": 1,
    "requests": 3,
    "files": [
        {"name": "part-00000.jsonl", "requests": 2, "bytes": 99, "attempt": 1, "headers": {}},
        {"name": "part-00001.jsonl", "requests": 1, "bytes": 50, "attempt": 2},
    ],
}


def read(folder: Path, content: dict[str, Any]) -> Manifest:
    path = folder / "p" / "requests" / "partition=de" / "s" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return Manifest.read(Storage(str(folder)), "p", "de", "s")


def written(folder: Path, manifest: Manifest) -> str:
    manifest.write(Storage(str(folder)))
    return (folder / "p" / "requests" / "partition=de" / "s" / "manifest.json").read_text("utf-8")


@pytest.mark.parametrize("more", [{}, {"of_a_later_version": {"x": [1]}}])
def test_a_manifest_is_written_as_in_earlier_versions(tmp_path: Path, more: dict[str, Any]) -> None:
    """With the same order of fields, indent and plain Unicode. Fields of a later version are not lost."""
    content = EVERYTHING | more
    assert written(tmp_path, read(tmp_path, content)) == json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def test_fields_of_unused_features_are_left_out(tmp_path: Path) -> None:
    unused = {"betas", "header_sets", "render_request", "rendering", "bounded_schema", "fresh_after"}
    unused |= {"waits", "left_out", "division"}
    plain = {name: value for name, value in EVERYTHING.items() if name not in unused}
    assert written(tmp_path, read(tmp_path, plain)) == json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def test_a_manifest_of_the_first_version_can_be_read(tmp_path: Path) -> None:
    manifest = read(tmp_path, FIRST)
    assert (manifest.max_requests, manifest.max_bytes, manifest.left_out) == (100_000, 250_000_000, None)
    assert manifest.files == [PartEntry(name="part-00000.jsonl", requests=3, bytes=99, attempt=1)]
    assert manifest.answers.fields == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rows": "4"}, "'rows' is str"),
        ({"rows": True}, "'rows' is bool"),
        ({"files": {}}, "'files' is dict"),
        ({"files": ["part-00000.jsonl"]}, "'files.0' is str"),
        ({"files": [{"name": "part-00000.jsonl", "requests": 3, "bytes": 9}]}, "'files.0.attempt' is missing"),
        ({"header_sets": [{"anthropic-beta": 1}]}, "'header_sets.0.anthropic-beta' is int"),
        ({"fresh_after": "now"}, "'fresh_after' is str"),
    ],
)
def test_the_error_names_the_damaged_field_of_a_manifest(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DamagedFileError, match=f"{tmp_path}/.*/manifest.json is damaged: {problem}"):
        read(tmp_path, FIRST | change)


def test_a_receipt_is_written_as_in_earlier_versions(tmp_path: Path) -> None:
    counts = {**dict.fromkeys(COUNTS, 0), "processing": 3}
    batch = BatchObject("msgbatch_1", "in_progress", counts, 1795858200.5, 1795944600.5, None, None)
    receipt = Receipt.of(batch, 2, "https://api.anthropic.com", None)
    content = {
        "batch_id": "msgbatch_1",
        "requests": 3,
        "attempt": 2,
        "created_at": 1795858200.5,
        "expires_at": 1795944600.5,
        "base_url": "https://api.anthropic.com",
        "organization": None,
    }
    assert receipt.to_json().decode() == json.dumps(content, indent=2) + "\n"
    storage = Storage(str(tmp_path))
    storage.write_bytes(receipt.to_json(), "r.json")
    assert read_document(storage, ("r.json",), Receipt).batch == batch
