"""Object stores that refuse or differ: nothing is lost, and no healthy file passes for a damaged one."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.storage.blob import BlobServiceClient
from fsspec.implementations.local import LocalFileSystem

from batch_assets.core.dataset.data_file import DataFile
from batch_assets.core.errors import SettingsError, StorageError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.storage import Storage
from batch_assets.core.store.receipt import Receipt
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.responses import RESPONSE_SCHEMA, open_responses, reading_responses

from .object_stores import SECRET, AzureServer, Bucket, S3Server, refusal

_NAME = ResponseName.of_batch("msgbatch_1")


def test_folders_that_are_blobs_are_moved_with_what_is_in_them(azure_server: AzureServer) -> None:
    """As with a hierarchical namespace, where each folder is also an empty blob."""
    bucket = Bucket(azure_server.new_bucket(), azure_server.options)
    storage = bucket.storage()
    service = BlobServiceClient.from_connection_string(azure_server.options["connection_string"])
    container = service.get_container_client(bucket.url.removeprefix("abfs://"))

    def mark(*folders: str) -> None:
        for folder in folders:
            container.upload_blob(f"root/{folder}", b"", metadata={"hdi_isfolder": "true"}, overwrite=True)

    storage.write_bytes(b"an answer", "old", "responses", "one")
    storage.write_bytes(b"another", "older", "two")
    mark("old", "old/responses", "old/empty")
    assert storage.were_files([("old",), ("old",), ("older", "two")]) == [False, False, True]
    assert not storage.is_file("old") and storage.size("old") is None and storage.version("old") is None
    assert storage.names() == ["old", "older"] and not storage.create_bytes(b"x", "older", "two")
    storage.rename(("old",), ("new",))
    assert storage.all_files() == [("new", "responses", "one"), ("older", "two")]
    assert storage.read_bytes("new", "responses", "one") == b"an answer" and storage.names() == ["new", "older"]
    mark("new", "new/responses")
    storage.remove("new")
    assert storage.names() == ["older"]


@pytest.mark.parametrize("bucket", ["s3", "azure"], indirect=True)
@pytest.mark.parametrize("content", [b"", b"content"])
def test_a_name_can_be_a_file_and_a_folder(bucket: Bucket, content: bytes) -> None:
    storage = bucket.storage()
    files = {"old": content, "old/one": b"one", "old/two/three": b"three"}
    for name, data in files.items():
        storage.write_bytes(data, *name.split("/"))
    assert storage.is_file("old")
    storage.rename(("old",), ("new",))
    moved = {"/".join(parts): storage.read_bytes(*parts) for parts in storage.all_files()}
    assert moved == {name.replace("old", "new"): data for name, data in files.items()}
    storage.remove("new")
    assert storage.names() == [] and storage.were_files([("new",), ("new", "one")]) == [False, False]


@pytest.mark.parametrize("bucket", ["s3", "gcs", "azure"], indirect=True)
def test_a_bucket_that_does_not_exist_is_named(bucket: Bucket) -> None:
    scheme, _, path = bucket.url.partition("://")
    url = f"{scheme}://no-such-{path}/root"
    storage = Storage(url, options=bucket.options)
    assert storage.names() == [] and not storage.is_file("a")
    for write in (storage.write_bytes, storage.create_bytes):
        with pytest.raises(StorageError, match=r"Create the bucket, or change the root, and") as raised:
            write(b"x", "a")
        assert str(raised.value).startswith(f"{storage.uri('a')} cannot be written (")


def _large_responses() -> bytes:
    """A response file that is read in several calls."""
    rows = 10_000
    ids = [f"{number:032x}" for number in range(rows)]
    noise = np.random.default_rng(0).bytes(600 * rows).hex()
    columns = {
        name: pa.array([None] * rows, field.type)
        for name, field in zip(RESPONSE_SCHEMA.names, RESPONSE_SCHEMA, strict=True)
    }
    columns["custom_id"] = pa.array(ids, RESPONSE_SCHEMA.field("custom_id").type)
    texts = [noise[1200 * number : 1200 * (number + 1)] for number in range(rows)]
    columns["response_text"] = pa.array(texts, RESPONSE_SCHEMA.field("response_text").type)
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=RESPONSE_SCHEMA), file, compression="none", row_group_size=1000)
    return file.getvalue()


@pytest.mark.parametrize("reads", [1, 2])
@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found"])
def test_a_refused_read_is_no_damage(s3: S3Server, reads: int, status: str) -> None:
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    storage.write_bytes(_large_responses(), "p", "responses", str(_NAME))
    seen: list[str] = []

    def refuse_later(environ: dict[str, Any]) -> tuple[str, bytes] | None:
        if environ["REQUEST_METHOD"] == "GET":
            seen.append(environ["PATH_INFO"])
        code = "AccessDenied" if status.startswith("403") else "NoSuchKey"
        return refusal(status, code) if len(seen) > reads else None

    s3.answer = refuse_later
    with (
        pytest.raises(StorageError, match=r"cannot be reached|was removed while it was read"),
        open_responses(storage, "p", _NAME) as file,
        reading_responses(storage, "p", _NAME),
    ):
        file.read()
    s3.answer = lambda _: None
    with open_responses(storage, "p", _NAME) as file:
        assert file.read(columns=["custom_id"]).num_rows == 10_000


def _ignores_deletions(environ: dict[str, Any]) -> tuple[str, bytes] | None:
    return ("204 No Content", b"") if environ["REQUEST_METHOD"] == "DELETE" else None


def _fails_within_success(environ: dict[str, Any]) -> tuple[str, bytes] | None:
    """A deletion of many names whose answer lists an error for each, which s3fs ignores."""
    if environ["REQUEST_METHOD"] != "POST" or "delete" not in environ["QUERY_STRING"]:
        return None
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    error = b"<Error><Key>root/a</Key><Code>InternalError</Code><Message>later</Message></Error>"
    return "200 OK", b"<DeleteResult>" + error + b"</DeleteResult>"


def test_what_a_store_does_not_remove_is_not_reported_as_removed(s3: S3Server) -> None:
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    for name in ("one", "two"):
        storage.write_bytes(b"x", "a", name)
    storage.write_bytes(b"x", "b")
    s3.answer = lambda environ: (
        refusal("403 Forbidden", "AccessDenied") if environ["REQUEST_METHOD"] == "DELETE" else None
    )
    for call in (lambda: storage.remove("a"), lambda: storage.remove("b"), lambda: storage.rename(("b",), ("c",))):
        with pytest.raises(StorageError, match=r"cannot be reached .*not now"):
            call()
    s3.answer = _ignores_deletions
    for call in (lambda: storage.remove("a"), lambda: storage.rename(("a",), ("d",))):
        with pytest.raises(StorageError, match=r"root/a/one, .*root/a/two cannot be removed: 2 files"):
            call()
    assert storage.read_bytes("a", "one") == b"x"
    s3.answer = _fails_within_success
    storage.remove("a")
    storage.remove("b")
    assert storage.names() == ["c", "d"]


@pytest.mark.parametrize("fault", [_ignores_deletions, _fails_within_success])
def test_a_receipt_that_cannot_be_replaced_is_given_up(
    s3: S3Server, fault: Callable[[dict[str, Any]], tuple[str, bytes] | None]
) -> None:
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    file = StoredRequestFile(storage, ("p", "requests", "part-00001.jsonl"))
    storage.write_bytes(b"not a receipt", *file.receipt_parts())
    receipt = Receipt(
        batch_id="msgbatch_1",
        requests=1,
        attempt=1,
        created_at=0.0,
        expires_at=1.0,
        base_url="http://127.0.0.1:1",
        organization=None,
    )
    calls: list[str] = []

    def bounded(environ: dict[str, Any]) -> tuple[str, bytes] | None:
        calls.append(environ["REQUEST_METHOD"])
        return fault(environ) if len(calls) < 100 else refusal("403 Forbidden", "AccessDenied")

    s3.answer = bounded
    if fault is _ignores_deletions:
        with pytest.raises(StorageError, match=r"cannot be written"):
            file.write_receipt(receipt)
    else:
        assert file.write_receipt(receipt) == receipt == file.receipt()
    assert len(calls) < 100


def _puts_answered(answer: Callable[[], tuple[str, bytes] | None]) -> Callable[..., tuple[str, bytes] | None]:
    """Answer conditional writes only."""
    return lambda environ: answer() if environ.get("HTTP_IF_NONE_MATCH") else None


def test_a_store_may_refuse_without_naming_the_condition(s3: S3Server) -> None:
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    s3.answer = _puts_answered(lambda: refusal("412 Precondition Failed", "PreconditionFailed"))
    with pytest.raises(StorageError, match="not now"):
        storage.create_bytes(b"first", "receipt")
    storage.write_bytes(b"first", "receipt")
    assert not storage.create_bytes(b"second", "receipt")
    assert storage.read_bytes("receipt") == b"first"


@pytest.mark.parametrize(("conflicts", "is_written"), [(1, True), (2, True), (3, False)])
def test_a_conflict_between_writes_is_tried_again(s3: S3Server, conflicts: int, is_written: bool) -> None:
    storage = Bucket(s3.new_bucket(), s3.options).storage()
    answers = [refusal("409 Conflict", "ConditionalRequestConflict")] * conflicts
    s3.answer = _puts_answered(lambda: answers.pop() if answers else None)
    if is_written:
        assert storage.create_bytes(b"first", "receipt") and storage.read_bytes("receipt") == b"first"
    else:
        with pytest.raises(StorageError, match="ConditionalRequestConflict"):
            storage.create_bytes(b"first", "receipt")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("abfs://bucket/root", {"connection_string": f"nothing;{SECRET}"}),
        ("strict://bucket/root", {"password": f"a/{SECRET}"}),
    ],
)
def test_a_store_that_cannot_be_opened_shows_no_secret(url: str, options: dict[str, Any]) -> None:
    fsspec.register_implementation("strict", StrictFileSystem, clobber=True)
    with pytest.raises(SettingsError, match=f"the root {url} cannot be opened") as raised:
        Storage(url, options=options)
    assert SECRET not in str(raised.value) and raised.value.__suppress_context__


class StrictFileSystem(LocalFileSystem):
    """A file system that is no object store, takes few arguments, remembers listings and reads no ranges."""

    protocol = "strict"

    def __init__(self, password: str = "") -> None:
        super().__init__()
        if password:
            raise RuntimeError(f"{password} is wrong, see http://127.0.0.1:1?password={quote(password, safe='')}")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("strict://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"strict://{name}"

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True)
        entries = self.dircache[path]
        return entries if detail else [entry["name"] for entry in entries]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if (end or 0) > 1 << 40:
            raise MemoryError
        return cast(bytes, super().cat_file(path, start, end))


def test_other_file_systems_are_asked_as_fsspec_does(tmp_path: Path) -> None:
    fsspec.register_implementation("strict", StrictFileSystem, clobber=True)
    url = f"strict://{tmp_path}/root"
    storage = Storage(url)
    assert storage.create_bytes(b"one", "a", "one") and not storage.create_bytes(b"two", "a", "one")
    storage.write_bytes(b"", "a", "empty")
    assert storage.names("a") == ["empty", "one"] and storage.read_bytes("a", "one", most=2) == b"on"
    (tmp_path / "root/a/two").write_bytes(b"of another process")
    assert storage.names("a") == [*storage.versions("a")] == ["empty", "one", "two"]
    assert storage.is_file("a", "empty") and not storage.is_file("a") and storage.size("a", "two") == 18
    storage.rename(("a",), ("b",))
    with storage.open("b", "one") as file:
        assert (file.read(1), file.seek(0, 2), file.tell()) == (b"o", 3, 3)
    storage.remove("b")
    assert storage.names() == [] and storage.names("b") == [] and storage.all_files() == []
    fsspec.filesystem("memory").pipe_file("/cached/root/a", b"one")
    assert Storage("simplecache::memory://cached/root").read_bytes("a") == b"one"


@pytest.fixture
def web_server() -> Iterator[tuple[str, list[int]]]:
    """A web server that knows no ranges: its URL, and how many bytes of a file it has sent."""
    sent = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def _start(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(64 << 20))
            self.end_headers()

        do_HEAD = _start

        def do_GET(self) -> None:
            self._start()
            try:
                for _ in range(64):
                    self.wfile.write(b"x" * (1 << 20))
                    sent[0] += 1 << 20
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/rows.csv", sent
        server.shutdown()
        thread.join()


def test_a_dataset_of_a_web_server_is_read_as_it_comes(web_server: tuple[str, list[int]]) -> None:
    url, sent = web_server
    with DataFile(fsspec.filesystem("http"), url).open() as file:
        assert file.read(1 << 20) == b"x" * (1 << 20)
    assert sent[0] < 32 << 20
