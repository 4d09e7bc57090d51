"""A real PostgreSQL server for the tests, on a free TCP port of this machine."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

_UNPRIVILEGED = ("postgres", "nobody")  # codespell:ignore nobody


def find_server() -> tuple[Path | None, str]:
    """The folder with initdb and postgres, or the reason why there is none."""
    if importlib.util.find_spec("psycopg2") is None:
        return None, "the package psycopg2 is not installed"
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    folders += [Path(on_path).parent] if on_path else []
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder, ""
    return None, "initdb and postgres are neither in /usr/lib/postgresql/*/bin nor on the PATH"


class PostgresServer:
    """Used as a context manager; `new_database()` returns the URL of an empty database."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="batch-assets-postgresql-"))
        self._log = self._folder / "log.txt"
        self._user = unprivileged(self._folder)

    def __enter__(self) -> PostgresServer:
        data = self._folder / "data"
        made = self._run("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        assert made.returncode == 0, made.stdout
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        started = self._run("pg_ctl", "-D", str(data), "-l", str(self._log), "-w", "-o", options, "start")
        assert started.returncode == 0, started.stdout
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Output goes to a file: the server would inherit a pipe, which would then never end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                check=False,
                **self._user,
            )
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def new_database(self) -> str:
        """Create a database and return its SQLAlchemy URL."""
        import psycopg2

        name = f"test_{secrets.token_hex(4)}"
        connection = psycopg2.connect(host="127.0.0.1", port=self._port, user="tester", dbname="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"create database {name}")
        connection.close()
        return f"postgresql+psycopg2://tester@127.0.0.1:{self._port}/{name}"


def unprivileged(folder: Path) -> dict[str, Any]:
    """The options for a process of another user, who then owns the folder: servers refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(next(name for name in _UNPRIVILEGED if _exists(name)))
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
