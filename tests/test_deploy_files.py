"""deploy/: what a test can read of the image, compose.yaml and the values for Helm, and what runs the services.

There is neither Docker nor Kubernetes in tests. Each command is parsed by the program that it names, and each
variable is read by the one that it is for.
"""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import click
import pytest
import sqlalchemy as sa
import yaml
from celery.app.defaults import NAMESPACES, flatten
from celery.bin.celery import celery
from dagster._cli import create_dagster_cli
from dagster._core.instance.ref import InstanceRef
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver

from batch_assets.core.settings import Settings
from batch_assets.dagster.instance_settings import differences, read_settings
from deploy import helm_values
from deploy.compose_file import COMPOSE, Service, read_services, variables_of
from deploy.networks import Namespaces, OneAddress
from deploy.run_processes import Deployment
from tests.core.postgres import PostgresServer, find_server
from tests.documentation import PROJECT, page
from tests.test_requirements import locked

FOLDER = PROJECT / "deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")
LINES = re.sub(r" *\\\n +", " ", DOCKERFILE).splitlines()
HOME = "/opt/dagster_home"
VALUES = {name: f"{name.lower()}123" for name in variables_of()}
SERVICES = read_services(VALUES)
OWN = [service for service in SERVICES.values() if service.is_own]
WITH_PIPELINES = {"bucket", "code", "worker"}
PROGRAMS: dict[str, click.Command] = {
    "dagster": create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": dagster_webserver,
    "celery": celery,
}


def named(service: Service) -> str:
    return service.name


def parse(command: tuple[str, ...]) -> dict[str, Any]:
    """Parse a command as its program does, without running it, and return the values of its options."""
    program, *arguments = (argument.replace(HOME, str(FOLDER)) for argument in command)
    parsed = PROGRAMS[program]
    context = parsed.make_context(program, arguments)
    while isinstance(parsed, click.Group):
        name, found, rest = parsed.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None and name is not None, command
        context.invoked_subcommand = name
        with context:
            given = parsed.callback
            assert given is not None
            context.invoke(given, **context.params)  # Celery imports its app there
        parsed, context = found, found.make_context(name, rest, parent=context)
    assert not context.args, command
    return context.params


@pytest.fixture
def celery_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES["worker"].environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(FOLDER))


# --- compose.yaml ----------------------------------------------------------------------------------------------


def test_each_service_has_the_image_that_it_should() -> None:
    assert {service.name for service in OWN} == {"bucket", "code", "daemon", "web", "worker"}
    others = {service.name: service.image for service in SERVICES.values() if not service.is_own}
    assert set(others) == {"postgres", "redis", "s3"}
    for image in others.values():
        assert re.fullmatch(r"[\w./-]+:\S*\d\S*", image), f"{image} is not pinned"
    assert list(SERVICES).index("postgres") < list(SERVICES).index("code") < list(SERVICES).index("daemon")


def test_the_database_is_healthy_when_the_ledger_has_its_own() -> None:
    programs, problem = find_server()
    if programs is None:
        pytest.skip(f"NO POSTGRESQL: {problem}")
    with PostgresServer(programs) as server:
        url = sa.make_url(server.new_database())

        def is_healthy(database: str | None) -> bool:
            names = {"dagster": url.username, "ledger": database}
            command = [names.get(word) or word for word in SERVICES["postgres"].health]
            command[0] = str(programs / command[0])
            return subprocess.run(command, env={"PGPORT": str(url.port)}, capture_output=True).returncode == 0

        assert is_healthy(url.database) and not is_healthy("no_such_database")


@pytest.mark.parametrize("service", OWN, ids=named)
def test_each_command_is_one_that_its_program_knows(service: Service, celery_environment: None) -> None:
    for command in filter(None, (service.command, service.health)):
        if command[0] == "python":
            assert command[1] == "-c"
            compile(command[2], service.name, "exec")
        else:
            assert parse(command)
    with pytest.raises(click.UsageError):
        parse(("dagster", "code-server", "start", "--no-such-option"))


def test_the_programs_find_each_other(celery_environment: None) -> None:
    code, web = parse(SERVICES["code"].command), parse(SERVICES["web"].command)
    (server,) = (
        entry["grpc_server"] for entry in yaml.safe_load((FOLDER / "workspace.yaml").read_text())["load_from"]
    )
    assert server == {"host": "code", "port": code["port"], "location_name": code["location_name"]}
    assert parse(SERVICES["code"].health)["port"] == code["port"]
    assert code["host"] == web["host"] == "0.0.0.0"
    document = yaml.safe_load(COMPOSE.read_text())
    assert document["services"]["web"]["ports"] == [f"127.0.0.1:3000:{web['port']}"]
    launcher = yaml.safe_load((FOLDER / "storage_and_launcher.yaml").read_text())["run_launcher"]["config"]
    assert parse(SERVICES["worker"].command)["queues"] == [launcher["default_queue"]]
    for service in OWN:
        hosts = set(re.findall(r"(?<=[@/])([a-z0-9]+):\d+", " ".join(service.environment.values())))
        assert hosts <= SERVICES.keys(), service.name


@pytest.mark.parametrize("service", OWN, ids=named)
def test_each_variable_is_read_by_something(service: Service) -> None:
    rows = page("docs/deploy.md").table("Environment variables")
    read = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])}
    read |= set(re.findall(r"env: (\w+)", (FOLDER / "storage_and_launcher.yaml").read_text()))
    ours = {name for name in service.environment if not name.startswith("AWS_")}
    assert ours - read == set()
    assert ("BATCH_ASSETS_LEDGER" in ours) == ("ANTHROPIC_API_KEY" in ours) == (service.name in WITH_PIPELINES)


def test_celery_knows_the_settings_of_the_workers(celery_environment: None) -> None:
    settings = importlib.import_module("dagster_celery_config")
    known = {name for name, _ in flatten(NAMESPACES)}
    names = {name for name in vars(settings) if not name.startswith("_")} - {"os"}
    assert {"broker_url", "worker_disable_prefetch"} <= names <= known
    (shown,) = (block.text for block in page("docs/deploy.md").blocks() if "worker_disable_prefetch" in block.text)
    assert (FOLDER / "dagster_celery_config.py").read_text().endswith(shown.partition("\n\n")[2])


def test_the_product_understands_its_variables() -> None:
    settings = Settings.from_env(SERVICES["worker"].environment)
    assert (settings.root, settings.has_credentials) == ("s3://batch-assets/root", True)
    ledger = sa.make_url(settings.ledger_url)
    assert f"CREATE DATABASE {ledger.database};" in (FOLDER / "databases.sql").read_text()
    postgres = SERVICES["postgres"].environment
    for url in (ledger, sa.make_url(SERVICES["web"].environment["DAGSTER_POSTGRES_URL"])):
        assert (url.username, url.password) == (postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"])
    assert url.database == postgres["POSTGRES_DB"]


def test_the_client_of_s3_understands_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES["worker"].environment.items():
        monkeypatch.setenv(name, value)
    session = botocore.session.get_session()
    assert session.create_client("s3").meta.endpoint_url == "http://s3:9000"
    credentials, server = session.get_credentials(), SERVICES["s3"].environment
    assert credentials.access_key == server["MINIO_ROOT_USER"]
    assert credentials.secret_key == server["MINIO_ROOT_PASSWORD"]
    assert SERVICES["s3"].command[-1] == ":9000"


def test_every_volume_is_declared_or_a_file_here() -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    used = [volume for fields in document["services"].values() for volume in fields.get("volumes", ())]
    sources = {volume.partition(":")[0] for volume in used}
    assert {source for source in sources if not source.startswith(".")} == set(document["volumes"])
    assert all((FOLDER / source).is_file() for source in sources if source.startswith("."))


def test_a_variable_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="ANTHROPIC_API_KEY"):
        read_services(VALUES | {"ANTHROPIC_API_KEY": ""})
    file = tmp_path / "compose.yaml"
    file.write_text("services: {a: {image: x, command: ['${ONE:-1}', '${TWO}']}}")
    assert read_services({}, file)["a"].command == ("1", "")
    assert read_services({"ONE": "2", "TWO": "3"}, file)["a"].command == ("2", "3")


# --- The image -------------------------------------------------------------------------------------------------


def copied() -> Iterator[tuple[str, str]]:
    """Source and target of everything that the image gets from the project."""
    for line in LINES:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, target = line.split()[1:]
            yield from ((source, target) for source in sources)


def test_everything_that_is_copied_exists_and_is_sent_to_docker() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    for source, _ in copied():
        assert (PROJECT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, source
    assert "deploy/.env" in ignored
    assert "/deploy/.env" in (PROJECT / ".gitignore").read_text().split()


def test_the_image_installs_what_is_locked_and_runs_as_a_user() -> None:
    runs = [line for line in LINES if line.startswith("RUN ")]
    makefile = (PROJECT / "Makefile").read_text()
    assert "--require-hashes -r requirements/build.txt -r requirements/$(1).txt" in makefile
    assert any(
        "--require-hashes -r /tmp/requirements/build.txt -r /tmp/requirements/runtime.txt" in run for run in runs
    )
    assert "--no-deps --no-build-isolation -e ." in makefile
    assert any("--no-deps --no-build-isolation -e ." in run for run in runs)
    assert [line for line in LINES if line.startswith("FROM ")] == [
        "FROM python:3.13-slim AS packages",
        "FROM python:3.13-slim",
    ]
    assert LINES[-1] == "USER 10001:10001"


def test_the_packages_that_urls_and_settings_name_are_locked() -> None:
    packages = locked("runtime")
    needed = {"dagster-celery", "dagster-k8s", "dagster-postgres", "psycopg2-binary", "redis", "s3fs"}
    assert needed <= packages.keys()


def test_the_home_in_the_image_has_what_the_programs_read() -> None:
    targets = {(source.rpartition("/")[2], target) for source, target in copied()}
    assert f"DAGSTER_HOME={HOME}" in DOCKERFILE
    assert {("workspace.yaml", f"{HOME}/"), ("dagster.yaml", f"{HOME}/")} <= targets
    assert "cat storage_and_launcher.yaml >> dagster.yaml" in DOCKERFILE
    for service in OWN:
        used = [argument for argument in service.command if argument.startswith("/opt")]
        assert set(used) <= {f"{HOME}/workspace.yaml"}, service.name
    assert "mkdir storage" in DOCKERFILE
    assert f"logs:{HOME}/storage" in COMPOSE.read_text()


def test_the_settings_in_the_image_are_the_shipped_ones_and_dagster_takes_them(tmp_path: Path) -> None:
    parts = [PROJECT / "dagster.yaml", FOLDER / "storage_and_launcher.yaml"]
    file = tmp_path / "dagster.yaml"
    file.write_text("".join(part.read_text() for part in parts))
    assert differences(read_settings(file), file) == []
    instance = InstanceRef.from_dir(str(tmp_path))
    assert instance.run_launcher_data is not None
    assert instance.run_launcher_data.class_name == "WatchingCeleryRunLauncher"
    assert instance.storage_data.class_name == "DagsterPostgresStorage"


# --- Helm ------------------------------------------------------------------------------------------------------


def test_the_values_are_those_that_the_script_makes() -> None:
    assert helm_values.VALUES.read_text() == helm_values.text(), "run: python -m deploy.helm_values"


def test_the_values_give_the_settings_of_dagster_yaml_once(tmp_path: Path) -> None:
    values = yaml.safe_load(helm_values.VALUES.read_text())
    settings = {**values["additionalInstanceConfig"], "telemetry": values["telemetry"]}
    assert settings == yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert differences(settings, tmp_path) == []
    # Blocks that the chart would write as well.
    daemon = values["dagsterDaemon"]
    assert daemon["runMonitoring"]["enabled"] is daemon["runRetries"]["enabled"] is False
    assert daemon["sensors"]["useThreads"] is values["retention"]["enabled"] is False
    assert "concurrency" not in values, "the chart's default is not to write it"


# --- Without Docker --------------------------------------------------------------------------------------------


def test_services_run_as_processes_in_their_order(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mark = tmp_path / "prepared"
    served = {"image": "batch-assets", "command": ["python", "-m", "http.server", str(port), "-b", "127.0.0.1"]}
    look = f"import urllib.request; urllib.request.urlopen('http://served:{port}')"
    first = (
        f"import os, pathlib; pathlib.Path('{mark}').write_text(os.environ['SECRET'] + os.environ['DAGSTER_HOME'])"
    )
    file = tmp_path / "compose.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "services": {
                    "user": {
                        "image": "batch-assets",
                        "command": ["python", "-c", look],
                        "depends_on": {"served": {"condition": "service_healthy"}},
                    },
                    "served": {
                        **served,
                        "healthcheck": {"test": ["CMD", "python", "-c", look]},
                        "depends_on": {"prepare": {"condition": "service_completed_successfully"}},
                    },
                    "prepare": {
                        "image": "batch-assets",
                        "command": ["python", "-c", first],
                        "environment": {"SECRET": "${SECRET:?}"},
                    },
                }
            }
        )
    )
    folder = tmp_path / "run"
    folder.mkdir()
    with Deployment(folder, OneAddress(), {"SECRET": "known:"}, path=file) as deployment:
        deployment.start()
        assert list(deployment.processes) == ["prepare", "served", "user"]
        assert mark.read_text() == f"known:{folder}/dagster_home"
        assert deployment.processes["user"].wait(60) == 0, deployment.log("user")
        assert deployment.run(["python", "-c", look], like="user") == 0
        workspace = yaml.safe_load((folder / "dagster_home" / "workspace.yaml").read_text())
        assert workspace["load_from"][0]["grpc_server"]["host"] == "code", "this file has no service of that name"
    assert deployment.processes["served"].returncode is not None
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)


def test_names_become_addresses_only_where_they_are_hosts() -> None:
    here = OneAddress()
    text = "redis://redis:6379/0 postgresql://postgres:redis@postgres:5432/postgres"
    expected = "redis://127.0.0.1:6379/0 postgresql://postgres:redis@127.0.0.1:5432/postgres"
    assert here.named(text, ["redis", "postgres"]) == expected
    assert (
        here.named("      host: code\n      port: 4000\n", ["code"]) == "      host: 127.0.0.1\n      port: 4000\n"
    )
    assert here.named("batch_assets.definitions s3://batch-assets/root", ["s3", "batch"]).endswith(
        "s3://batch-assets/root"
    )


def test_namespaces_have_addresses_and_names_of_their_own() -> None:
    try:
        network = Namespaces(subnet=1 + os.getpid() % 255)
    except (PermissionError, RuntimeError) as why:
        pytest.skip(f"NO NETWORK NAMESPACES: {why}")
    handler = "http.server.SimpleHTTPRequestHandler"
    print_name = "print(socket.gethostname(), flush=True)"
    served = f"import http.server, socket; {print_name}; http.server.test({handler}, port=80)"
    look = "import urllib.request; print(urllib.request.urlopen('http://served:80').status)"
    server = None
    try:
        network.add("served-1", "served")
        network.add("user", "user")
        command = network.command("served-1", [sys.executable, "-c", served])
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "served-1\n"
        assert "Serving HTTP" in server.stdout.readline()
        done = subprocess.run(
            network.command("user", [sys.executable, "-c", look]), capture_output=True, text=True
        )
        assert done.stdout == "200\n", done.stderr
        with pytest.raises(OSError):
            socket.getaddrinfo("served", 80)
    finally:
        if server is not None:
            server.kill()
            server.communicate()
        network.close()
