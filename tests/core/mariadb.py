"""A real MariaDB server for the tests, on a free TCP port of this machine."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from .postgres import unprivileged
from .support import wait_for

_PROGRAMS = ("mariadb-install-db", "mariadbd")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_SMALL = ("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0")


def find_mariadb() -> tuple[list[str] | None, str]:
    """The programs that make and run a server, or the reason why there are none."""
    if importlib.util.find_spec("pymysql") is None:
        return None, "the package pymysql is not installed"
    programs = [shutil.which(name, path=_PATH) for name in _PROGRAMS]
    if any(program is None for program in programs):
        return None, f"{' and '.join(_PROGRAMS)} are neither on the PATH nor in /usr/sbin"
    return [str(program) for program in programs], ""


class MariadbServer:
    """Used as a context manager; `new_database()` returns the URL of an empty database.

    The character set of new databases is latin1, as on many old servers.

    Attributes:
        folder: A folder in which the server can write.
    """

    def __init__(self, programs: Sequence[str]) -> None:
        self._install, self._program = programs
        self.folder = Path(tempfile.mkdtemp(prefix="batch-assets-mariadb-"))
        self._user: dict[str, Any] = unprivileged(self.folder)

    def __enter__(self) -> MariadbServer:
        data = f"--datadir={self.folder}/data"
        with (self.folder / "install.txt").open("w+") as log:
            options = [
                "--no-defaults",
                data,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_SMALL,
            ]
            made = subprocess.run([self._install, *options], **self._settings(log), check=False)
            log.seek(0)
            assert made.returncode == 0, log.read()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"mysql+pymysql://root@127.0.0.1:{port}"
        options = [
            "--no-defaults", data, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid", "--character-set-server=latin1", *_SMALL,
        ]  # fmt: skip
        self._log = (self.folder / "log.txt").open("w+")
        self._process = subprocess.Popen([self._program, *options], **self._settings(self._log))
        wait_for(self._answers, "the server of MariaDB", 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _settings(self, log: Any) -> dict[str, Any]:
        environment = {"PATH": _PATH, "LC_ALL": "C", "TMPDIR": str(self.folder)}
        files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        return {"cwd": self.folder, "env": environment, **files, **self._user}

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log.txt").read_text()
        try:
            self.execute("select 1")
        except sa.exc.OperationalError:
            return False
        return True

    def execute(self, *statements: str) -> None:
        """Execute statements as the administrator."""
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def new_database(self) -> str:
        """Create a database and return its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(4)}"
        self.execute(f"create database {name}")
        return f"{self._url}/{name}"
