"""Object stores on this machine, reached over HTTP: S3 by moto, Google Cloud Storage and Azure by emulators."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from gcp_storage_emulator.server import create_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from batch_assets.core.io.storage import Storage

from ..support import wait_for

SECRET = "the-secret-access-key-of-a-test"
# Azurite has one account. Its name and key are in its documentation.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_NOT_IMPLEMENTED = b"<Error><Code>NotImplemented</Code><Message>not here</Message></Error>"
_Start = Callable[..., Any]
# Otherwise gcsfs asks over gRPC, which the emulator does not speak, what kind of bucket it is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


class Call(NamedTuple):
    """A call of the S3 server: when it began and ended, its method, path and range."""

    began: float
    ended: float
    method: str
    path: str
    range: str


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        """Print nothing."""


class S3Server:
    """An S3 server that counts calls. Used as a context manager.

    Attributes:
        calls: All calls since the last `forget`.
        delay: Seconds that each call takes longer.
        has_conditions: Whether it knows conditional writes.
        before: Called before each call with its method and path.
        answer: Called with the WSGI environment of each call; returns an answer in place of the server's own, as
            a status and a body, or `None`.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.delay, self.has_conditions = 0.0, True
        self.before: Callable[[str, str], None] = lambda *_: None
        self.answer: Callable[[dict[str, Any]], tuple[str, bytes] | None] = lambda _: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._call, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> S3Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        fsspec.get_filesystem_class("s3").clear_instance_cache()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which boto reaches this server, and no other."""
        return {
            "AWS_ACCESS_KEY_ID": "a-test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the file system."""
        return {"key": "a-test", "secret": SECRET, "endpoint_url": self.url}

    def _call(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        began, method, path = time.monotonic(), environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.before(method, path)
        time.sleep(self.delay)
        if environ.get("HTTP_IF_NONE_MATCH") and not self.has_conditions:
            start("501 Not Implemented", [("Content-Type", "application/xml")])
            return [_NOT_IMPLEMENTED]
        if (own := self.answer(environ)) is not None:
            start(own[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(own[1])))])
            return [own[1]]
        answer: Iterable[bytes] = self._app(environ, start)
        self.calls.append(Call(began, time.monotonic(), method, path, environ.get("HTTP_RANGE", "")))
        return answer

    def forget(self) -> None:
        self.calls.clear()

    def one_after_the_other(self) -> int:
        """The largest number of calls each of which began after the one before had ended."""
        count, free = 0, 0.0
        for call in sorted(self.calls, key=lambda call: call.ended):
            if call.began >= free:
                count, free = count + 1, call.ended
        return count

    def new_bucket(self) -> str:
        """Create a bucket and return its URL."""
        name = f"test-{secrets.token_hex(6)}"
        fsspec.filesystem("s3", **self.options).mkdir(name)
        return f"s3://{name}"


class GcsServer:
    """Google's object store, without conditional writes and moves. Used as a context manager."""

    def __init__(self) -> None:
        logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
        self._port = _free_port()
        self._server = create_server("127.0.0.1", self._port, in_memory=True, default_bucket="test")

    def __enter__(self) -> GcsServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        fsspec.get_filesystem_class("gs").clear_instance_cache()

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the file system."""
        return {"token": "anon", "endpoint_url": f"http://127.0.0.1:{self._port}", "project": "test"}

    def new_bucket(self) -> str:
        """Return the URL of an empty folder of the only bucket."""
        return f"gs://test/{secrets.token_hex(6)}"


def find_azurite() -> tuple[str | None, str]:
    """The program that emulates Azure Blob Storage, or the reason why there is none."""
    program = shutil.which("azurite-blob")
    return program, "" if program else "azurite-blob is not on the PATH: npm install --global azurite"


class AzureServer:
    """Azure's object store. Used as a context manager."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder, self._port = program, folder, _free_port()

    def __enter__(self) -> AzureServer:
        options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        command = [self._program, "--blobPort", str(self._port), *options]
        self._log = (self._folder / "log.txt").open("w+")
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=self._log, stderr=subprocess.STDOUT)
        wait_for(self._answers, "Azurite", 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        fsspec.get_filesystem_class("abfs").clear_instance_cache()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log.txt").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the file system."""
        endpoint = f"http://127.0.0.1:{self._port}/{_ACCOUNT}"
        text = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};BlobEndpoint={endpoint};"
        return {"connection_string": text}

    def new_bucket(self) -> str:
        """Create a container and return its URL."""
        name = f"test-{secrets.token_hex(6)}"
        fsspec.filesystem("abfs", **self.options).mkdir(name)
        return f"abfs://{name}"


def refusal(status: str, code: str) -> tuple[str, bytes]:
    """An answer of S3 that says no."""
    return status, f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()


class Bucket(NamedTuple):
    """A place of its own in an object store.

    Attributes:
        url: Its URL.
        options: The arguments of the file system.
    """

    url: str
    options: dict[str, Any]

    def storage(self) -> Storage:
        """A root in it, as another process would open it."""
        return Storage(f"{self.url}/root", options=self.options)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
