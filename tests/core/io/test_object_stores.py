"""Roots and datasets on object stores: few calls, nothing is overwritten, and no secret is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fsspec
import pytest
from packaging.version import Version

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.errors import DatasetError, PairingError, SettingsError, StorageError
from batch_assets.core.io.storage import Storage
from batch_assets.core.open_root import open_root
from batch_assets.core.requests.build import build_requests
from batch_assets.core.settings import Settings
from batch_assets.core.store.live_journal import journals_of

from ..support import World, environment, params, read, texts
from .object_stores import SECRET, Bucket, S3Server

# What a partition of 1,000 rows may wait for: 8 seconds, if each call takes 0.2.
MOST_CALLS = 40


def test_files_are_written_read_listed_and_removed(bucket: Bucket) -> None:
    storage = bucket.storage()
    assert storage.names("a") == [] and storage.versions("a") == {} and storage.all_files() == []
    assert not storage.is_file("a", "b") and storage.size("a", "b") is None and storage.version("a", "b") is None
    for get in (storage.read_bytes, storage.open):
        with pytest.raises(FileNotFoundError):
            get("a", "b")
    for name, content in {"b": b"old", "c d=%/é": b"two", "empty": b"", "large": b"x" * (5 << 20)}.items():
        storage.write_bytes(content, "a", name)
    storage.write_bytes(b"new", "a", "b")
    assert storage.names() == ["a"] and storage.names("a") == ["b", "c d=%", "empty", "large"]
    assert [*storage.versions("a")] == ["b", "empty", "large"]
    if not bucket.url.startswith("memory:"):  # which names one time in a listing, and another for one file
        assert storage.version("a", "b") == storage.versions("a")["b"]
    assert (storage.read_bytes("a", "b"), storage.read_bytes("a", "b", most=2)) == (b"new", b"ne")
    assert storage.read_bytes("a", "empty") == b"" and storage.is_file("a", "empty")
    with storage.open("a", "large") as file:
        file.seek(-1, 2)
        assert file.tell() + len(file.read()) == storage.size("a", "large") == 5 << 20
    assert storage.all_files() == [("a", "b"), ("a", "c d=%", "é"), ("a", "empty"), ("a", "large")]
    storage.remove("a", "c d=%")
    storage.remove("a", "missing")
    assert storage.names("a") == ["b", "empty", "large"]


def test_what_another_process_writes_is_seen(bucket: Bucket) -> None:
    storage, other = bucket.storage(), Storage(f"{bucket.url}/root", options={**bucket.options, "max_paths": 9})
    storage.write_bytes(b"one", "a", "one")
    assert storage.names("a") == ["one"] and not storage.is_file("a", "two")
    other.write_bytes(b"two", "a", "two")
    assert storage.is_file("a", "two") and storage.names("a") == ["one", "two"]
    other.remove("a", "one")
    assert not storage.is_file("a", "one") and [*storage.versions("a")] == ["two"]


@pytest.mark.parametrize("bucket", ["memory", "s3", "azure"], indirect=True)
def test_files_and_folders_are_renamed(bucket: Bucket) -> None:
    storage = bucket.storage()
    storage.write_bytes(b"one", "a", "one")
    storage.rename(("a", "one"), ("a", "two"))
    storage.rename(("a", "missing"), ("a", "one"))
    assert storage.names("a") == ["two"]
    storage.rename(("a",), ("b",))
    assert storage.names() == ["b"] and storage.read_bytes("b", "two") == b"one"


@pytest.mark.parametrize("bucket", ["memory", "s3", "azure"], indirect=True)
def test_a_file_that_must_not_be_overwritten_is_not(bucket: Bucket) -> None:
    storage = bucket.storage()
    assert storage.create_bytes(b"first", "a", "receipt")
    assert not storage.create_bytes(b"second", "a", "receipt")
    assert storage.read_bytes("a", "receipt") == b"first"


def test_the_store_itself_decides_who_was_first(s3: S3Server) -> None:
    """Another process writes the file after this one has begun to."""
    bucket = Bucket(s3.new_bucket(), s3.options)
    storage, other = bucket.storage(), fsspec.filesystem("s3", **s3.options, max_paths=9)

    def write_first(method: str, path: str) -> None:
        if method == "PUT":
            s3.before = lambda *_: None
            other.pipe_file(path.strip("/"), b"of the other")

    s3.before = write_first
    assert not storage.create_bytes(b"mine", "receipt")
    assert storage.read_bytes("receipt") == b"of the other"


def test_a_store_without_conditional_writes_is_asked_first(s3: S3Server) -> None:
    s3.has_conditions = False
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    assert storage.create_bytes(b"first", "receipt") and not storage.create_bytes(b"second", "receipt")
    assert storage.read_bytes("receipt") == b"first"


def test_a_root_cannot_get_two_ledgers_at_a_time(s3: S3Server, tmp_path: Path) -> None:
    """Two processes with empty ledgers of their own open the same new root."""
    url = f"{s3.new_bucket()}/root"

    def settings(name: str) -> Settings:
        return Settings.from_env(environment("http://127.0.0.1:1", url, f"sqlite:///{tmp_path}/{name}.db"))

    def open_another(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("root.json"):
            s3.before = lambda *_: None
            with open_root(settings("other")) as other:
                first.append(other.salt)

    first: list[str] = []
    s3.before = open_another
    with open_root(settings("late")) as late, pytest.raises(PairingError):
        _ = late.ledger
    with open_root(settings("other")) as other:
        assert first == [other.salt]


def test_a_partition_takes_few_calls_one_after_the_other(
    s3: S3Server, new_world: Callable[..., World], tmp_path: Path
) -> None:
    url = s3.new_bucket()
    files = fsspec.filesystem("s3", **s3.options)
    for day in ("mon", "tue"):
        lines = "".join(f"{day}-{number},the text of row {number} of {day}\n" for number in range(1000))
        files.pipe_file(f"{url}/{day}/rows.csv", b"id,text\n" + lines.encode())
    world = new_world(ledger=f"sqlite:///{tmp_path}/ledger.db", BATCH_ASSETS_ROOT=f"{url}/root")
    dataset = {"path": f"{url}/{{partition}}/rows.csv", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, partitions={"static": ["mon", "tue"]})
    world.send(pipeline, "mon")
    world.finish(pipeline, "mon")
    # From here on as in a deployment: a run builds and sends, and another one collects.
    world.reopened()
    s3.forget()
    s3.delay = 0.05
    world.send(pipeline, "tue")
    world.reopened()
    world.emulator.end_batches()
    done = world.collect(pipeline, "tue").results
    assert done is not None and done.final and done.rows == 1000
    assert s3.one_after_the_other() <= MOST_CALLS, "\n".join(f"{call.method} {call.path}" for call in s3.calls)


def test_a_waiting_table_is_uploaded_once_and_replaces_the_complete_one_by_one_upload(
    s3: S3Server, new_world: Callable[..., World], tmp_path: Path
) -> None:
    def uploads() -> list[str]:
        paths = [call.path for call in s3.calls if call.method == "PUT" and call.path.endswith("results.parquet")]
        s3.forget()
        return [path.split("/root/asked/")[1] for path in paths]

    def tables() -> list[str]:
        files.invalidate_cache()
        return sorted(path.split("/root/asked/")[1] for path in files.glob(f"{url}/root/asked/results*/*"))

    url = s3.new_bucket()
    files = fsspec.filesystem("s3", **s3.options)
    world = new_world(ledger=f"sqlite:///{tmp_path}/ledger.db", BATCH_ASSETS_ROOT=f"{url}/root")
    world.send(world.pipeline(texts(4)))
    world.finish(world.pipeline())
    complete = files.cat_file(f"{url}/root/asked/results/results.parquet")
    world.emulator.settings(latency=3600)
    edited = world.pipeline(params=params("Another question: {{ text }}"))
    world.send(edited)
    s3.forget()
    waiting = world.collect(edited).results
    assert waiting is not None and waiting.held_back
    assert uploads() == ["results_next/results.parquet"]
    assert files.cat_file(f"{url}/root/asked/results/results.parquet") == complete
    world.emulator.end_batches()
    done = world.collect(edited).results
    assert done is not None and done.final
    assert (uploads(), tables()) == (["results/results.parquet"], ["results/results.parquet"])


def test_a_build_makes_as_many_listings_beside_many_partitions(
    s3: S3Server, new_world: Callable[..., World], tmp_path: Path
) -> None:
    url = s3.new_bucket()
    world = new_world(ledger=f"sqlite:///{tmp_path}/ledger.db", BATCH_ASSETS_ROOT=f"{url}/root")
    dataset, keys = {"path": "{partition}.csv", "key": "id"}, [f"p{number}" for number in range(12)]
    pipeline = world.pipeline(dataset=dataset, partitions={"static": keys})
    listings = []
    for key in keys:
        (world.folder / f"{key}.csv").write_text(f"id,text\n1,of {key}\n")
        world.reopened()
        s3.forget()
        assert build_requests(world.root, pipeline, key).written == 1
        listings.append(sum(call.path.strip("/") == url.removeprefix("s3://") for call in s3.calls))
    assert listings[-1] == listings[-6] <= 20, listings


def test_files_are_read_side_by_side(s3: S3Server) -> None:
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    for name in "abcdefgh":
        storage.write_bytes(b"x", name)
    s3.forget()
    s3.delay = 0.05
    assert storage.were_files([("none",), *((name,) for name in "abcdefgh")]) == [False, *[True] * 8]
    assert len(s3.calls) == 1  # this process has just written the others
    Bucket(storage.url.removesuffix("/root"), s3.options | {"max_paths": 9}).storage()
    s3.forget()
    assert storage.together([lambda name=name: storage.read_bytes(name) for name in "abcdefgh"]) == [b"x"] * 8
    assert len(s3.calls) == 8 > s3.one_after_the_other()
    s3.forget()
    read = storage.each(storage.read_bytes, [*"abcdefgh" * 3])
    assert next(read) == ("a", b"x") and len(s3.calls) == 16
    assert len([*read]) == 23 and s3.one_after_the_other() < 24


@pytest.mark.skipif(
    Version(version("s3fs")) < Version("2026.3"), reason="its `find` does not list one level by a prefix"
)
def test_a_folder_is_listed_in_one_call_even_if_it_is_empty(s3: S3Server) -> None:
    """fsspec's `ls` of an empty one lists all of the folder above it, with the folders of all other partitions."""
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    for name in ("one", "folder=1/two", "folder=1/inner/three", "folder=10/four"):
        storage.write_bytes(b"x", *name.split("/"))
    s3.forget()
    assert storage.names("folder=2") == storage.names("folder=1", "none") == []
    assert len(s3.calls) == 2
    assert sorted(storage.names("folder=1")) == ["inner", "two"]
    assert sorted(storage.names()) == ["folder=1", "folder=10", "one"]
    assert [*storage.versions("folder=10")] == ["four"]
    assert len(s3.calls) == 5


def test_a_file_with_the_name_of_a_folder_is_listed(s3: S3Server) -> None:
    """A response file that is not listed counts as lost, whatever another tool has put beside it."""
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    for name in ("both", "both/inner", "plain"):
        storage.write_bytes(b"x", "responses", *name.split("/"))
    assert [*storage.versions("responses")] == ["both", "plain"]
    assert storage.names("responses") == ["both", "plain"]


def test_a_file_system_that_keeps_listings_lists_each_folder_by_itself(s3: S3Server) -> None:
    storage = Bucket(s3.new_bucket(), s3.options | {"use_listings_cache": True}).storage()
    for name in ("pipeline/other", "pipeline/responses/one"):
        storage.write_bytes(b"x", *name.split("/"))
    assert storage.names("pipeline") == ["other", "responses"]
    assert storage.names("pipeline", "responses") == ["one"]


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("s3fs", "gcsfs", "adlfs"))
from pathlib import Path
from batch_assets.core.dataset.located_files import LocatedFiles
from batch_assets.core.errors import DatasetError, SettingsError
from batch_assets.core.io.storage import Storage
for url in ("s3://b/r", "gs://b/r", "abfs://b/r", "nothing://b/r"):
    for use in (Storage, lambda url: LocatedFiles(url, Path())):
        try:
            use(url)
        except (DatasetError, SettingsError) as error:
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    for line, extra in zip(lines, ["s3", "s3", "gcs", "gcs", "azure", "azure"], strict=False):
        assert f"cannot be opened: {line.split('cannot be opened: ')[1]}" in line
        assert f"pip install 'batch-assets[{extra}]'" in line
    assert len(lines) == 8 and "nothing" in lines[-1]


def test_errors_show_the_place_and_no_secret(s3: S3Server, tmp_path: Path) -> None:
    options = s3.options | {
        "endpoint_url": "http://127.0.0.1:1",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    storage = Storage("s3://bucket/root", options=options)
    for call in (
        lambda: storage.read_bytes("a"),
        lambda: storage.names("a"),
        lambda: storage.write_bytes(b"x", "a"),
        lambda: storage.create_bytes(b"x", "a"),
    ):
        with pytest.raises(
            StorageError, match=r"s3://bucket/root.* cannot be reached .*nothing is lost"
        ) as raised:
            call()
        assert SECRET not in str(raised.value)
    variable = {"BATCH_ASSETS_ROOT": "s3://b", "BATCH_ASSETS_LEDGER": "sqlite:////l.db"}
    settings = Settings.from_env(variable | {"BATCH_ASSETS_STORAGE_OPTIONS": json.dumps(options)})
    assert settings.storage_options == options and SECRET not in repr(settings)
    for text in (f'{{"secret": "{SECRET}"', f'["{SECRET}"]'):
        with pytest.raises(SettingsError, match="BATCH_ASSETS_STORAGE_OPTIONS is not a JSON object") as raised_:
            Settings.from_env(variable | {"BATCH_ASSETS_STORAGE_OPTIONS": text})
        assert SECRET not in str(raised_.value)


def test_a_mistake_in_the_options_names_their_variable(s3: S3Server) -> None:
    for options in ({"kye": "a-test"}, {"client_kwargs": {"region": "x"}}, {"endpoint_url": "nonsense"}):
        storage = Storage(f"{s3.new_bucket()}/root", options=s3.options | options)
        for call in (storage.names, lambda storage=storage: storage.write_bytes(b"x", "a")):
            with pytest.raises(StorageError, match=r"Check .*BATCH_ASSETS_STORAGE_OPTIONS"):
                call()


def test_a_library_that_repeats_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"AccountName=acme;AccountKey={SECRET}==;BlobEndpoint=http://127.0.0.1:1/acme"
    storage = Storage(
        "memory://bucket/root", options={"connection_string": text, "client": {"password": "pass-w0rd"}}
    )

    def refuse(*_: object, **__: object) -> bytes:
        raise RuntimeError(f"403 {text} {SECRET}== pass-w0rd http://127.0.0.1:1/acme")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", refuse)
    with pytest.raises(StorageError, match=r"403 .*http://127.0.0.1:1/acme") as raised:
        storage.read_bytes("a")
    assert SECRET not in str(raised.value) and "pass-w0rd" not in str(raised.value)


def test_a_dataset_that_cannot_be_reached_is_no_missing_file(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.new_bucket()
    fsspec.filesystem("s3", **s3.options).pipe_file(f"{url}/rows.csv", b"id,text\n1,a\n")
    assert read(tmp_path, f"{url}/rows.csv")["text"].to_pylist() == ["a"]
    with pytest.raises(DatasetError, match="there is no file or folder"):
        read(tmp_path, f"{url}/none.csv")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(DatasetError, match=r"rows.csv cannot be opened: EndpointConnectionError"):
        read(tmp_path, f"{url}/rows.csv")


def test_a_dataset_that_the_store_does_not_hand_out_is_named(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    url = s3.new_bucket()
    files = fsspec.filesystem("s3", **s3.options)
    files.pipe_file(f"{url}/rows.csv", b"id,text\n1,a\n")
    files.pipe_file(f"{url}/folder/rows.csv", b"id,text\n1,a\n")

    def fail(environ: dict[str, Any]) -> tuple[str, bytes] | None:
        fails = environ["REQUEST_METHOD"] == "GET" and failing in environ["PATH_INFO"] + environ["QUERY_STRING"]
        return ("500 Internal Server Error", b"<Error><Code>InternalError</Code></Error>") if fails else None

    s3.answer = fail
    failing = "rows.csv"
    with pytest.raises(DatasetError, match=r"rows\.csv cannot be read: OSError"):
        read(tmp_path, f"{url}/rows.csv")
    failing = "prefix="
    with pytest.raises(DatasetError, match=r"/folder cannot be (opened|listed): OSError"):
        read(tmp_path, f"{url}/folder")


def test_live_calls_are_recorded_in_the_store_before_and_after_they_are_made(
    s3: S3Server, new_world: Callable[..., World], tmp_path: Path
) -> None:
    world = new_world(ledger=f"sqlite:///{tmp_path}/ledger.db", BATCH_ASSETS_ROOT=f"{s3.new_bucket()}/root")
    world.emulator.settings(latency=24 * 3600)
    pipeline = world.pipeline(texts(3), deadline="6h", rescue="live")
    record_caps(world.root, [pipeline])
    world.send(pipeline)
    world.query("update submission set began_at = 0")
    world.query("update batch set submitted_at = 0")
    lost = {"match": {"method": "POST", "path": "/v1/messages", "nth": 1}, "action": {"drop": "after_commit"}}
    world.emulator.faults([lost])
    world.submit(pipeline, unattended=True)
    (journal,) = journals_of(world.root.storage, pipeline.name)
    called, answered = journal.notes()
    assert called == answered == {0, 1, 2}
    done = world.collect(pipeline).results
    assert done is not None and done.counts["succeeded"] == 2
    assert journals_of(world.root.storage, pipeline.name) == []
    world.submit(pipeline, unattended=True)
    assert len(world.live_calls()) == 3
