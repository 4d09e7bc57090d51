"""A URL with a secret is refused wherever it would be written down, and the refusal does not repeat it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from batch_assets import MessageBatchResource
from batch_assets.core.api.client import ApiClient
from batch_assets.core.errors import BatchAssetsError, ConfigError, SettingsError
from batch_assets.core.io.database import error_text, holds_secret
from batch_assets.core.settings import Settings
from batch_assets.core.urls import secret_in, secret_in_query, without_secrets
from batch_assets.dagster.metadata.prompt import prompt_as_markdown

from .support import World, make_pipeline, params, texts

SECRET = "RECOGNIZE-ME-4711"
WITH_SECRET = [
    f"https://[::1]:8080/rows.csv?token={SECRET}",
    f"simplecache::https://[2001:db8::1]/rows.csv?sig={SECRET}",
    f"ftp://user%3A{SECRET}@host/rows.csv",
    f"https://host/rows.csv?pw={SECRET}",
    f"https://host/rows.csv?auth_key={SECRET}",
    f"ftp://user:{SECRET}@host/rows",
    f"sftp://user:{SECRET}/%2F@host/rows",
    f"s3://AKIA:{SECRET}@bucket/rows",
    f"S3://:{SECRET}@bucket/rows",
    f"simplecache::ftp://user:{SECRET}@host/rows.csv",
    f"zip://rows.csv::https://user:{SECRET}@host/rows.zip",
    f"http://u:{SECRET}@[::1]:80/rows.csv",
    f"https://{SECRET}@host/rows.csv",
    f"https://account.blob.example/rows.csv?sv=2024&sig={SECRET}",
    f"https://bucket.example/rows.csv?X-Amz-Date=1&X-Amz-Signature={SECRET}",
    f"https://storage.example/rows.csv?X-Goog-Credential={SECRET}",
    f"https://host/rows.csv?a=1;API-key={SECRET}",
    f"https://host/rows.csv#access_token={SECRET}",
    f"smb://host/rows.csv?password={SECRET}",
    f"https://host/rows.csv?code={SECRET}",
    f"https://host/rows.csv?a=1&%70assword={SECRET}",
    f"https://host/rows.csv;password={SECRET}",
    f"https://host;a=1;token={SECRET}/rows.csv",
    f"https:///user:{SECRET}@host/rows.csv",
    f"https://@user:{SECRET}@host/rows.csv",
    f"s3:///AKIA:{SECRET}@bucket/rows",
]
WITHOUT = [
    "https://[::1]:8080/rows.csv",
    "simplecache::https://[2001:db8::1]/rows.csv",
    "/data/p:w@d/rows.csv",
    "data/rows.csv?token=x",
    "s3://bucket/a@b/day=?/*.csv",
    "s3://bucket/token=5/rows.csv",
    "http://127.0.0.1:8080/a@b.csv",
    "http://[::1]:80/rows.csv",
    "https://host/rows.csv?version=3&format=csv",
    "abfs://container@account.dfs.core.windows.net/rows",
    "sftp://user@host/rows.csv",
    "ftp://user:@host/rows.csv",
    "github://org:repo@main/rows.csv",
    "zip://rows.csv::s3://bucket/rows.zip",
    "memory://bucket/data",
    "memory:///a:b@c/data",
    "file:///a:b@c/rows.csv",
    "data/a:b@c/rows.csv",
    "s3:b@c/rows.csv",
    "https://host/rows.csv?country_code=de&version=3;format=csv",
    "",
]


@pytest.mark.parametrize("url", WITH_SECRET)
def test_a_secret_in_a_url_is_refused_everywhere_and_not_repeated(url: str, tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    slack = {"slack": {"token_env": "T", "channel": "#a", "base_url": url}}
    refused = [
        lambda: make_pipeline(tmp_path, url),
        lambda: make_pipeline(tmp_path, {"files": url}),
        lambda: make_pipeline(tmp_path, "rows.csv", notify=[slack]),
        lambda: make_pipeline(tmp_path, {"sql": f"select * from read_csv('{url}')", "url_env": "U"}),
        lambda: Settings.from_env({"BATCH_ASSETS_ROOT": url, "BATCH_ASSETS_LEDGER": ledger}),
        lambda: Settings.from_env({"BATCH_ASSETS_ROOT": url}),
        lambda: Settings.from_env({"ANTHROPIC_BASE_URL": url}),
        lambda: MessageBatchResource(root=url, ledger=ledger).settings(),
        lambda: dg.Definitions(resources={"eu": MessageBatchResource(root=url)}).get_repository_def(),
        lambda: dg.Definitions(resources={"eu": MessageBatchResource(base_url=url)}).get_repository_def(),
    ]
    assert SECRET not in (secret_in(url) or SECRET)
    for refuse in refused:
        with pytest.raises(BatchAssetsError) as caught:
            refuse()
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("slashes", ["", "/", "\\", "\\\\"])
def test_a_secret_in_a_url_with_wrong_slashes_is_refused(slashes: str, tmp_path: Path) -> None:
    url = f"https:{slashes}user:{SECRET}@host/rows.csv"
    for refuse in (
        lambda: make_pipeline(tmp_path, url),
        lambda: Settings.from_env({"BATCH_ASSETS_ROOT": url}),
    ):
        with pytest.raises(BatchAssetsError) as caught:
            refuse()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", WITHOUT)
def test_other_urls_and_paths_are_not_refused(url: str, tmp_path: Path) -> None:
    assert secret_in(url) is None
    if url:
        assert make_pipeline(tmp_path, url).config.dataset.location == url


@pytest.mark.parametrize(
    "query",
    [
        f"select * from postgres_scan('host=h user=u password={SECRET}', 'public', 't')",
        f"select * from dblink('dbname=x PASSWORD = {SECRET}', 'select 1')",
        f"select * from read_csv('s3://b/x.csv?s3_secret_access_key={SECRET}')",
    ],
)
def test_a_secret_in_a_query_is_refused(query: str, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text(query, "utf-8")
    for sql in (query, "q.sql"):
        with pytest.raises(ConfigError, match=r"dataset\.sql") as caught:
            make_pipeline(tmp_path, {"sql": sql, "url_env": "U"})
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    ["select * from t where password = 'x' and token <> ''", "select 'a@b', 'http://host:80/a@b'", "select ':a'"],
)
def test_other_queries_are_not_refused(query: str) -> None:
    assert secret_in_query(query) is None


def test_the_settings_do_not_show_the_password_of_the_ledger() -> None:
    url = f"postgresql+psycopg2://user:{SECRET}@host/ledger"
    assert SECRET not in repr(Settings.from_env({"BATCH_ASSETS_LEDGER": url}))


@pytest.mark.parametrize(
    ("password", "text", "shown"),
    [
        ("p", 'port 1 failed, "p" refused: not accepting p', 'port 1 failed, "***" refused: not accepting ***'),
        ("5", "port 5432 of 5", "port 5432 of ***"),
        ("word", "passwords: word", "pass***s: ***"),
    ],
)
def test_a_short_password_is_hidden_only_as_a_word(password: str, text: str, shown: str) -> None:
    """What is missing from other words would tell its letters."""
    url = f"postgresql+psycopg2://user:{password}@host/ledger"
    assert error_text(ValueError(text), sa.make_url(url)) == shown


def test_an_invalid_host_is_not_repeated() -> None:
    """The standard library's error has the host, and a password before it."""
    for name in ("ANTHROPIC_BASE_URL", "BATCH_ASSETS_UI_URL"):
        with pytest.raises(SettingsError, match=name) as caught:
            Settings.from_env({name: f"https://user:{SECRET}@host\u2100/"})
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "proxy", ["http://user:RECOGNIZE/ME@127.0.0.1:9", "nonesuch://user:RECOGNIZE@127.0.0.1:9"]
)
def test_the_password_of_a_proxy_is_in_no_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    client = ApiClient(Settings.from_env({"ANTHROPIC_BASE_URL": "https://gateway.example"}))
    with pytest.raises(SettingsError, match="HTTPS_PROXY") as caught:
        client.retrieve("msgbatch_1")
    assert "RECOGNIZE" not in str(caught.value)


def test_a_part_of_a_connection_string_is_hidden_too() -> None:
    url = sa.make_url(f"mssql+pyodbc:///?odbc_connect=Driver%3Dx%3BPWD%3D{SECRET}%3BServer%3Dh")
    assert holds_secret(url)
    assert error_text(ValueError(f"login failed: {SECRET}"), url) == "login failed: ***"


def test_the_token_of_a_server_is_sent_and_not_shown(world: World) -> None:
    """Params with a token of an MCP server: it belongs in the request, and nowhere else."""
    server = {"type": "url", "url": "https://mcp.example", "name": "a", "authorization_token": SECRET}
    tools = [{"type": "mcp_toolset", "mcp_server_name": "a"}]
    pipeline = world.pipeline(
        texts(1), params=params(mcp_servers=[server], tools=tools), betas=["mcp-client-2025-11-20"]
    )
    report = world.build(pipeline)
    folder = world.submission_folder(pipeline, report)
    assert SECRET in (folder / report.files[0]).read_text("utf-8")
    assert SECRET not in (folder / "manifest.json").read_text("utf-8")
    assert SECRET not in prompt_as_markdown(pipeline)
    tokens = {"max_tokens": 5, "system": "password", "tools": [{"input_schema": {"password": {"type": "string"}}}]}
    assert without_secrets(tokens) == tokens
