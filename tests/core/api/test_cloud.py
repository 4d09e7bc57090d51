"""Cloud providers and workspaces, over real sockets: signatures, tokens, and whose batches a workspace shows."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from batch_assets.core.api.client import ApiClient
from batch_assets.core.api.errors import NotFoundError, NotSentError, RefusedError
from batch_assets.core.api.sdk_client import SdkClient
from batch_assets.core.client_settings import CREDENTIALS
from batch_assets.core.errors import ConfigError, EndpointMismatchError, SettingsError
from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.client import settings_for_pipeline
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from tests.receivers import Receiver, receiver

from ..gateway import Gateway
from ..lost_ledger import delete_ledger
from ..support import BATCHES, LIST, World, params, texts

ACCESS_KEY, SECRET, SESSION = "AKIAEMULATOR", "secret-of-the-access-key", "session-token-of-the-role"
TOKEN = "token-of-google-cloud"
KEY = "sk-ant-key-of-several-workspaces"
SECRETS = (ACCESS_KEY, SECRET, SESSION, TOKEN, KEY)
BODY = json.dumps({"requests": [{"custom_id": "a", "params": params("Hello")}]}).encode()


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(keys=(KEY, TOKEN), aws_keys={ACCESS_KEY: SECRET}) as started:
        yield started


@pytest.fixture(scope="module")
def token_endpoint() -> Iterator[Receiver]:
    with receiver() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The credentials of a role on AWS, and a key that goes to neither cloud."""
    for name in (*CREDENTIALS, "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def google(
    token_endpoint: Receiver, private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Receiver:
    """A service account, and the endpoint of its tokens."""
    account = {
        "type": "service_account",
        "client_email": "batches@example.iam.gserviceaccount.com",
        "token_uri": token_endpoint.url,
        "private_key": private_key,
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    token_endpoint.received.clear()
    token_endpoint.usual = 200, json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode()
    return token_endpoint


def aws(url: str, **more: str) -> dict[str, str]:
    return {
        "BATCH_ASSETS_PROVIDER": "aws",
        "BATCH_ASSETS_WORKSPACE": "wrkspc_a",
        "ANTHROPIC_AWS_BASE_URL": url,
        "AWS_REGION": "eu-central-1",
        **more,
    }


def google_cloud(url: str, workspace: str = "wrkspc_a") -> dict[str, str]:
    return {
        "BATCH_ASSETS_PROVIDER": "google-cloud",
        "BATCH_ASSETS_WORKSPACE": workspace,
        "ANTHROPIC_GOOGLE_CLOUD_BASE_URL": f"{url}/v1/projects/p/locations/global/workspaces/{workspace}/invoke",
    }


def direct(url: str, workspace: str, **more: str) -> dict[str, str]:
    """A key that may act on several workspaces."""
    return {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, "BATCH_ASSETS_WORKSPACE": workspace, **more}


@pytest.fixture
def world(emulator: Emulator, tmp_path: Path) -> Iterator[Callable[[dict[str, str]], World]]:
    opened: list[World] = []

    def made(env: dict[str, str]) -> World:
        grace = {"BATCH_ASSETS_ROOT": str(tmp_path / "output"), "BATCH_ASSETS_RECONCILE_GRACE": "0"}
        opened.append(World(emulator, tmp_path, open_root(Settings.from_env(env | grace))))
        return opened[-1]

    yield made
    for each in opened:
        each.root.close()


def create(client: ApiClient, body: bytes = BODY) -> str:
    hash_ = hashlib.sha256(BODY).hexdigest() if client.signs_bodies else None
    return client.create([body[:20], body[20:]], len(body), {}, hash_).id


@pytest.mark.usefixtures("google")
@pytest.mark.parametrize("provider", [aws, google_cloud])
def test_a_pipeline_runs_and_writes_no_credentials(
    provider: Callable[[str], dict[str, str]],
    emulator: Emulator,
    world: Callable[[dict[str, str]], World],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    there = world(provider(emulator.url))
    emulator.faults(
        [{"match": {**LIST, "nth": [1]}, "action": {"status": 500}}]
    )  # a repeated read is signed again
    try:
        table = there.run(there.pipeline(texts(5), batching={"max_requests": 2}))
    finally:
        emulator.reset_faults()
    assert table["result_type"].tolist() == ["succeeded"] * 5
    assert [batch["workspace"] for batch in there.accepted()] == ["wrkspc_a"] * 3
    written = b"".join(path.read_bytes() for path in there.folder.rglob("output/**/*") if path.is_file())
    assert b"wrkspc_a" in written
    assert not [secret for secret in SECRETS if secret.encode() in written or secret in caplog.text]


def test_a_signature_covers_the_exact_bytes(emulator: Emulator) -> None:
    client = ApiClient(Settings.from_env(aws(emulator.url)))
    before = len(emulator.log())
    with pytest.raises(RefusedError, match="signature") as refused:
        create(client, BODY.replace(b"Hello", b"Hallo"))
    assert refused.value.stop
    assert len(emulator.log()) == before
    assert client.retrieve(create(client)).total == 1
    client.close()


def test_the_official_clients_are_accepted_in_the_same_way(
    emulator: Emulator, google: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    url = google_cloud(emulator.url)["ANTHROPIC_GOOGLE_CLOUD_BASE_URL"]
    clients: list[anthropic.Anthropic] = [
        anthropic.AnthropicAWS(base_url=emulator.url, workspace_id="wrkspc_sdk"),
        anthropic.AnthropicGoogleCloud(base_url=url),
    ]
    for client in clients:
        requests: Any = json.loads(BODY)["requests"]
        batch = client.messages.batches.create(requests=requests)
        assert client.messages.batches.retrieve(batch.id).id == batch.id
    assert [batch["workspace"] for batch in emulator.log()[-2:]] == ["wrkspc_sdk", "wrkspc_a"]


def test_refused_credentials_are_named_by_no_text(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-of-the-access-key")
    for echoed in (ACCESS_KEY, SESSION):
        body = {"type": "error", "error": {"type": "permission_error", "message": f"not {echoed}"}}
        emulator.faults([{"match": LIST, "action": {"status": 403, "body": body}}])
        client = ApiClient(Settings.from_env(aws(emulator.url)))
        with pytest.raises(RefusedError, match=r"not \[key\]"):
            client.page()
        emulator.reset_faults()
        with pytest.raises(RefusedError, match="signature"):
            client.page()
        client.close()


def test_google_s_token_is_fetched_once_and_nothing_is_sent_without_one(
    emulator: Emulator, google: Receiver
) -> None:
    client = ApiClient(Settings.from_env(google_cloud(emulator.url)))
    google.usual = 400, json.dumps({"error": "invalid_grant", "error_description": TOKEN}).encode()
    calls = emulator.requests()
    with pytest.raises(NotSentError, match="no credentials could be fetched") as failed:
        create(client)
    assert TOKEN not in str(failed.value)
    assert emulator.requests() == calls
    google.usual = 200, json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode()
    google.received.clear()
    create(client)
    client.page()
    assert len(google.received) == 1
    client.close()


def test_a_batch_shows_in_its_own_workspace_only(emulator: Emulator) -> None:
    one, other = (ApiClient(Settings.from_env(direct(emulator.url, name))) for name in ("wrkspc_1", "wrkspc_2"))
    batch_id = create(one)
    assert one.retrieve(batch_id).id == batch_id
    with pytest.raises(NotFoundError):
        other.retrieve(batch_id)
    assert other.page().batches == []
    assert one.key_hash("salt") != other.key_hash("salt")
    one.close()
    other.close()


def test_a_root_stays_in_its_workspace(emulator: Emulator, world: Callable[[dict[str, str]], World]) -> None:
    first = world({"ANTHROPIC_BASE_URL": emulator.url, "ANTHROPIC_API_KEY": KEY})
    first.send(first.pipeline(texts(1)))  # with the workspace of the key, as an earlier version
    bound = world(direct(emulator.url, "wrkspc_1"))
    bound.root.check_endpoint()
    for env in (direct(emulator.url, "wrkspc_2"), {"ANTHROPIC_BASE_URL": emulator.url, "ANTHROPIC_API_KEY": KEY}):
        with pytest.raises(EndpointMismatchError, match="belongs to the workspace wrkspc_1"):
            world(env).root.check_endpoint()


def test_a_rebuilt_ledger_knows_the_workspace(
    emulator: Emulator, world: Callable[[dict[str, str]], World]
) -> None:
    first = world(direct(emulator.url, "wrkspc_1"))
    first.send(first.pipeline(texts(1)))
    delete_ledger(first)
    with pytest.raises(EndpointMismatchError, match="belongs to the workspace wrkspc_1"):
        world(direct(emulator.url, "wrkspc_2")).root.check_endpoint()
    world(direct(emulator.url, "wrkspc_1")).root.check_endpoint()


def test_a_pipeline_keeps_to_its_provider_and_workspace(tmp_path: Path, emulator: Emulator) -> None:
    there = World(emulator, tmp_path, open_root(Settings.from_env({"BATCH_ASSETS_EMULATOR": emulator.url})))
    settings = Settings.from_env(direct(emulator.url, "wrkspc_1"))
    pipeline = there.pipeline(texts(1), client={"provider": "anthropic", "workspace": "wrkspc_1"})
    assert settings_for_pipeline(settings, pipeline).client.workspace == "wrkspc_1"
    for client, problem in (
        ({"provider": "aws"}, "client.provider: the pipeline belongs to aws, and the provider of its root"),
        ({"workspace": "wrkspc_2"}, "client.workspace: the pipeline belongs to the workspace wrkspc_2"),
    ):
        pipeline = there.pipeline(texts(1), client=client)
        with pytest.raises(ConfigError, match=problem):
            settings_for_pipeline(settings, pipeline)
        settings_for_pipeline(there.root.settings, pipeline)  # on the emulator, any can be tried
    with pytest.raises(ConfigError, match="give an id"):
        there.pipeline(texts(1), client={"workspace": "a/b"})
    there.root.close()


def test_profile_and_timeout_of_a_pipeline_are_those_of_its_calls(emulator: Emulator, tmp_path: Path) -> None:
    sent: list[tuple[str, str | None]] = []

    class Recording(Gateway):
        def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
            profile = next((v for k, v in headers.items() if k.lower() == "anthropic-user-profile-id"), None)
            sent.append((f"{method} {path.partition('?')[0]}", profile))
            return super().answer(method, path, headers, body)

    with Recording(emulator.url) as gateway:
        env = direct(gateway.url, "wrkspc_1", BATCH_ASSETS_PROFILE="uprof_all", BATCH_ASSETS_TIMEOUT="40")
        there = World(emulator, tmp_path, open_root(Settings.from_env({"BATCH_ASSETS_EMULATOR": emulator.url})))
        pipeline = there.pipeline(texts(1), client={"profile": "uprof_one", "timeout": 5})
        settings = settings_for_pipeline(Settings.from_env(env), pipeline)
        client = ApiClient(settings)
        create(client)
        client.page()
        client.count_tokens(params("Hello"), {})
        assert sent == [
            (f"POST {BATCHES}", "uprof_one"),
            (f"GET {BATCHES}", None),
            ("POST /v1/messages/count_tokens", "uprof_one"),
        ]
        client.close()
        there.root.close()
    for configured, read, paid in ((settings, 5, 5), (Settings.from_env(env), 40, 40)):
        opened = SdkClient(configured)
        assert (opened.opened.timeout.read, opened.once().timeout.read) == (read, paid)  # type: ignore[union-attr]
        opened.close()


@pytest.mark.parametrize(
    ("env", "url"),
    [
        (
            {"BATCH_ASSETS_PROVIDER": "aws", "AWS_REGION": "us-east-1", "ANTHROPIC_AWS_WORKSPACE_ID": "w"},
            "https://aws-external-anthropic.us-east-1.api.aws",
        ),
        (
            {
                "BATCH_ASSETS_PROVIDER": "google-cloud",
                "GOOGLE_CLOUD_PROJECT": "p",
                "ANTHROPIC_GOOGLE_CLOUD_WORKSPACE_ID": "w",
            },
            "https://claude.googleapis.com/v1/projects/p/locations/global/workspaces/w/invoke",
        ),
        ({"BATCH_ASSETS_PROVIDER": "anthropic", "ANTHROPIC_API_KEY": KEY}, "https://api.anthropic.com"),
        ({"BATCH_ASSETS_PROVIDER": "aws", "AWS_REGION": "us-east-1"}, "set BATCH_ASSETS_WORKSPACE"),
        ({"BATCH_ASSETS_PROVIDER": "aws", "BATCH_ASSETS_WORKSPACE": "w"}, "set AWS_REGION"),
        (
            {"BATCH_ASSETS_PROVIDER": "google-cloud", "BATCH_ASSETS_WORKSPACE": "w"},
            "set ANTHROPIC_GOOGLE_CLOUD_PROJECT",
        ),
        (
            {"BATCH_ASSETS_PROVIDER": "azure"},
            "BATCH_ASSETS_PROVIDER is 'azure': set it to anthropic, aws, google-cloud",
        ),
        ({"BATCH_ASSETS_TIMEOUT": "1"}, "BATCH_ASSETS_TIMEOUT is '1': set it to seconds from 5 to 600"),
        ({"BATCH_ASSETS_WORKSPACE": "a b"}, "BATCH_ASSETS_WORKSPACE is 'a b': set it to an id"),
        ({"ANTHROPIC_AWS_BASE_URL": "https://user:pw@x"}, "ANTHROPIC_AWS_BASE_URL has a user, a password"),
    ],
)
def test_where_a_provider_is(env: dict[str, str], url: str) -> None:
    try:
        found = Settings.from_env(env).require_endpoint()
    except SettingsError as error:
        found = str(error)
    assert url in found


def test_missing_credentials_and_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    url = "http://127.0.0.1:9"
    for env, missing, module, extra in (
        (aws(url), "AWS_ACCESS_KEY_ID", "botocore.session", "aws"),
        (google_cloud(url), "GOOGLE_APPLICATION_CREDENTIALS", "google.auth", "google-cloud"),
    ):
        with pytest.raises(SettingsError, match=missing):
            ApiClient(Settings.from_env(env)).page()
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SettingsError, match=rf"pip install 'batch-assets\[{extra}\]'"):
            ApiClient(Settings.from_env(env)).page()
