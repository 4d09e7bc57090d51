"""`python -m deploy.run_processes` runs the services of compose.yaml as processes of this machine, without Docker.

Commands, environment and order are those of compose.yaml. PostgreSQL, Redis and the S3 server are the programs
installed here; in the place of MinIO, moto keeps the bucket in memory. It is for trials: the databases are thrown
away at the end.

    python -m deploy.run_processes                           all services, until Ctrl-C
    python -m deploy.run_processes postgres redis            only these
    python -m deploy.run_processes --namespaces              each in a network namespace of its own; needs root
    python -m deploy.run_processes -- batch-assets doctor    runs a command beside them, and stops
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from deploy.compose_file import COMPOSE, Service, read_services, variables_of
from deploy.networks import Namespaces, OneAddress

PROJECT = Path(__file__).parents[1]
# The paths in the image, as the Dockerfile has them.
_IMAGE_HOME = "/opt/dagster_home"
_READY_SECONDS, _STOP_SECONDS, _PAUSE_SECONDS = 240.0, 20.0, 0.5
_USER = "postgres"  # PostgreSQL refuses to run as root


class Deployment:
    """The services of a compose file as processes.

    Args:
        folder: An empty folder for databases, logs and Dagster's home.
        network: Where the processes run.
        variables: The variables that the file needs. Passwords that are missing are made up.
        more: Variables for everything that runs pipelines, such as the URL of an emulator.
        path: The compose file.

    Attributes:
        services: The services by name, in their order.
        processes: The processes that run: `web`, or `worker-1` and `worker-2`.
    """

    def __init__(
        self,
        folder: Path,
        network: OneAddress | Namespaces,
        variables: Mapping[str, str],
        more: Mapping[str, str] | None = None,
        path: Path = COMPOSE,
    ) -> None:
        made_up = {name: secrets.token_hex(8) for name in variables_of(path)}
        self.services = read_services(made_up | dict(variables), path)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder, self._network, self._more = folder, network, dict(more or {})

    @property
    def home(self) -> Path:
        """Dagster's home, with its dagster.yaml."""
        return self._folder / "dagster_home"

    def __enter__(self) -> Deployment:
        (self.home / "storage").mkdir(parents=True)
        parts = [PROJECT / "dagster.yaml", PROJECT / "deploy" / "storage_and_launcher.yaml"]
        (self.home / "dagster.yaml").write_text("".join(part.read_text() for part in parts))
        (self.home / "workspace.yaml").write_text(self._here((PROJECT / "deploy" / "workspace.yaml").read_text()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        own = [process for name, process in self.processes.items() if self._service_of(name).is_own]
        for process in own:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in own:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        for process in self.processes.values():  # databases are thrown away, so there is nothing to wait for
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # each has a session of its own
            process.wait()
        self._network.close()

    def start(self, only: Iterable[str] = ()) -> None:
        """Start services in their order, and wait until each is ready.

        Args:
            only: Their names; all if there is none.
        """
        wanted = set(only) or set(self.services)
        if unknown := wanted - self.services.keys():
            raise ValueError(f"{COMPOSE.name} has no service {', '.join(sorted(unknown))}")
        for service in self.services.values():
            if service.name in wanted:
                self._wait_for(service.after, wanted)
                for number in range(1, service.replicas + 1):
                    self.start_one(service.name, number)

    def start_one(self, name: str, number: int = 1) -> None:
        """Start one process of a service, or start it again after it has ended."""
        service = self.services[name]
        process = f"{name}-{number}" if service.replicas > 1 else name
        if process not in self.processes:
            self._network.add(process, name)
        command = service.command if service.is_own else _installed(service, self._folder)
        self.processes[process] = self._popen(process, command, service)

    def run(self, command: Sequence[str], like: str = "worker") -> int:
        """Run a command where the last process runs, with the environment of a service. Return its exit code."""
        return self._popen(list(self.processes)[-1], command, self.services[like], is_logged=False).wait()

    def _service_of(self, process: str) -> Service:
        return self.services[process if process in self.services else process.rpartition("-")[0]]

    def log(self, process: str) -> str:
        """Return what a process wrote."""
        return (self._folder / f"{process}.log").read_text(errors="replace")

    def _popen(
        self, process: str, command: Sequence[str], service: Service, *, is_logged: bool = True
    ) -> subprocess.Popen[bytes]:
        path = [str(Path(sys.executable).parent), os.environ["PATH"], str(_postgres_programs())]
        env = {"PATH": ":".join(path), "HOME": str(self._folder)}
        env |= {name: self._here(value) for name, value in service.environment.items()}
        if service.is_own:
            env |= {"DAGSTER_HOME": str(self.home), "PYTHONPATH": f"{PROJECT}/deploy:{PROJECT}"}
        if "BATCH_ASSETS_ROOT" in env:
            env |= self._more
        arguments = self._network.command(process, [self._here(argument) for argument in command])
        with (self._folder / f"{process}.log").open("ab") as log:
            return subprocess.Popen(
                arguments,
                cwd=PROJECT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log if is_logged else None,
                stderr=subprocess.STDOUT if is_logged else None,
                start_new_session=is_logged,
            )

    def _here(self, text: str) -> str:
        text = text.replace(_IMAGE_HOME, str(self.home))
        return self._network.named(text, list(self.services))

    def _wait_for(self, after: Mapping[str, str], wanted: Iterable[str]) -> None:
        for name, condition in after.items():
            if name in wanted:
                self._wait(name, condition)

    def _wait(self, name: str, condition: str) -> None:
        process, end = self.processes[name], time.monotonic() + _READY_SECONDS
        while not self._is(name, condition):
            if time.monotonic() > end or process.poll() not in (None, 0):
                raise RuntimeError(f"{name} is not ready ({condition}); its log ends:\n{self.log(name)[-2000:]}")
            time.sleep(_PAUSE_SECONDS)

    def _is(self, name: str, condition: str) -> bool:
        service, process = self.services[name], self.processes[name]
        if condition == "service_completed_successfully":
            return process.poll() == 0
        if condition == "service_started" or not service.health:
            return process.poll() is None
        check = replace(service, environment=service.environment | {"PGHOST": "127.0.0.1"})
        return self._popen(name, service.health, check).wait(60) == 0


def _installed(service: Service, folder: Path) -> tuple[str, ...]:
    """Return the command that runs the program of another image, as it is installed here."""
    program = service.image.partition(":")[0].rpartition("/")[2]
    if program == "postgres":
        return _postgres(service, folder)
    if program == "redis":
        data = folder / service.name
        data.mkdir(exist_ok=True)
        return (*service.command, "--dir", str(data), "--protected-mode", "no")
    if program == "minio":
        return ("moto_server", "-H", "0.0.0.0", "-p", "9000")
    raise ValueError(f"there is no way to run {service.image} without Docker")


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return found[0] if found else Path(shutil.which("postgres") or "postgres").parent


def _postgres(service: Service, folder: Path) -> tuple[str, ...]:
    """Make the databases that the image makes at its first start, and return the command of the server."""
    programs, data = _postgres_programs(), folder / service.name
    as_user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if os.geteuid() == 0 else []
    if not data.exists():
        data.mkdir()
        if as_user:
            folder.chmod(0o711)
            shutil.chown(data, _USER)
        user, password = service.environment["POSTGRES_USER"], folder / "password"
        password.write_text(service.environment["POSTGRES_PASSWORD"])
        if as_user:
            shutil.chown(password, _USER)
        make = [f"{programs}/initdb", "-D", str(data), "-U", user, "-A", "scram-sha-256", f"--pwfile={password}"]
        subprocess.run([*as_user, *make, "--no-sync"], check=True, capture_output=True, timeout=120)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        first = f"CREATE DATABASE {service.environment['POSTGRES_DB']};\n"
        for statement in (first, (PROJECT / "deploy" / "databases.sql").read_text()):
            single = [f"{programs}/postgres", "--single", "-D", str(data), "postgres"]
            statement = " ".join(line for line in statement.splitlines() if not line.startswith("--"))
            subprocess.run(
                [*as_user, *single], input=statement.encode() + b"\n", check=True, capture_output=True, timeout=60
            )
    server = ("-D", str(data), "-c", "listen_addresses=*", "-c", "unix_socket_directories=")
    return (*as_user, f"{programs}/postgres", *server)


def main() -> int:
    """Run the command line."""
    arguments, command = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("services", nargs="*", help="names of services; default: all")
    parser.add_argument("--namespaces", action="store_true", help="each process in a network namespace of its own")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for all that runs pipelines"
    )
    chosen = parser.parse_args(arguments)
    more = dict(setting.split("=", 1) for setting in chosen.env)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the processes end with this one
    folder = Path(tempfile.mkdtemp(prefix="batch-assets-deploy-"))
    network = Namespaces() if chosen.namespaces else OneAddress()
    try:
        with Deployment(folder, network, os.environ, more) as deployment:
            deployment.start(chosen.services)
            print(f"running: {', '.join(deployment.processes)}; logs in {folder}", flush=True)
            if command:
                return deployment.run(command)
            with suppress(KeyboardInterrupt):
                signal.pause()
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
