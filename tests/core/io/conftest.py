"""Object stores on this machine as fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from .object_stores import AzureServer, Bucket, GcsServer, S3Server, find_azurite


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The module's S3 server, with the environment that reaches it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.forget()
    yield s3_server
    s3_server.delay, s3_server.has_conditions, s3_server.before = 0.0, True, lambda *_: None
    s3_server.answer = lambda _: None


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[GcsServer]:
    with GcsServer() as server:
        yield server


@pytest.fixture(scope="module")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    program, problem = find_azurite()
    if program is None:
        pytest.skip(f"NO AZURITE: {problem}")
    with AzureServer(program, tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(params=["memory", "s3", "gcs", "azure"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """An empty bucket of each kind of store."""
    if request.param == "memory":
        yield Bucket("memory://bucket", {})
        fsspec.filesystem("memory").rm("/bucket", recursive=True)
        return
    server = request.getfixturevalue("s3" if request.param == "s3" else f"{request.param}_server")
    yield Bucket(server.new_bucket(), server.options)
