"""Child processes that cost a fork, not a start: each is a copy of a process that has imported everything.

`ForkServer` starts that process. `run` runs functions in children that begin at the same time; with `die_at`, each
is killed at its n-th I/O boundary as by `kill -9`. `start` and `python` do what a new interpreter does with the
same arguments, in an environment and a folder of its own.
"""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import sqlalchemy as sa

from tests.child import Child
from tests.forked_packages import PACKAGES as PACKAGES

_TESTS = Path(__file__).resolve().parent
_PROJECT = _TESTS.parent
_OURS = "batch_assets"
# Where modules are found that this process's own PYTHONPATH does not name.
_INSTALLED = [path for path in sys.path if path not in (str(_PROJECT), str(_TESTS))]


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        value: What its function returned, or None if it did not return.
        error: The traceback of its exception, or "".
        error_type: The name of the exception's class.
        killed: Whether it died at the requested boundary.
    """

    value: Any
    error: str
    error_type: str
    killed: bool


class ForkServer:
    """A process that forks children. Used as a context manager.

    Args:
        modules: Imported beforehand; each child imports any other module itself. Ours are among them only if
            every child has the same code of ours as this process.
        env: Variables in addition to this process's own.
    """

    def __init__(self, *modules: str, env: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(filter(None, [str(_PROJECT), str(_TESTS), os.environ.get("PYTHONPATH", "")]))
        self._modules, self._env = modules, os.environ | {"PYTHONPATH": path} | dict(env or {})
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> ForkServer:
        # Standard error is the test's own: what a child writes there is shown if the test fails.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", *self._modules],
            cwd=_PROJECT,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if error is not None:  # children may still be at work
            self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, *works: tuple[str, Mapping[str, Any]], die_at: int | None = None) -> list[Outcome]:
        """Run functions at the same time, one child each, and wait for all of them.

        Args:
            works: ("module:function", keyword arguments that JSON can hold).
            die_at: The I/O boundary, counted from 1, at which each child is killed if it gets that far.
        """
        order = {"works": [[name, dict(arguments)] for name, arguments in works], "die_at": die_at}
        return [Outcome(**entry) for entry in self._ask(order)]

    def start(
        self,
        *arguments: str,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        terminal: int | None = None,
    ) -> Child:
        """Start a child that does what `python ARGUMENTS` does.

        Args:
            arguments: `-c CODE …` or `-m MODULE …`.
            cwd: Its folder; by default this process's own.
            env: Its environment; by default this process's own.
            terminal: Its standard output and error; by default pipes.
        """
        return Child(self._ask, list(arguments), str(cwd or Path.cwd()), dict(env or os.environ), terminal)

    def python(
        self,
        *arguments: str,
        timeout: float,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Do what `subprocess.run([sys.executable, *arguments], …)` does, with the output in pipes."""
        child = self.start(*arguments, cwd=cwd, env=env)
        try:
            output, errors = child.communicate(timeout)
        except BaseException:
            child.kill()
            child.communicate()
            raise
        return subprocess.CompletedProcess(list(arguments), child.returncode, output, errors)

    def _ask(self, order: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the fork server is gone"
        return json.loads(line)


def _serve(modules: list[str]) -> dict[str, Any] | None:
    """Take orders until standard input ends. In a child that is to be an interpreter, return its order."""
    gc.disable()  # nothing of what is imported becomes garbage
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    gc.enable()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what children print is not a reply
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "works" in order:
            replies.write(json.dumps(_run_all(order["works"], order["die_at"])).encode() + b"\n")
            replies.flush()
        elif not _watched(order, replies):
            return dict(order)
    return None


def _watched(order: dict[str, Any], replies: BinaryIO) -> bool:
    """Fork a process that forks the child and reports how it ended. Return False in the child."""
    watcher = os.fork()
    if watcher != 0:
        os.waitpid(watcher, 0)
        return True
    out, err, ended = (os.open(path, os.O_WRONLY | os.O_NOCTTY) for path in order["paths"])
    if os.fork() != 0:  # the server does not have to wait for the rest
        os._exit(0)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for descriptor in (out, err, ended, replies.fileno()):
            os.close(descriptor)
        return False
    replies.write(json.dumps({"pid": child}).encode() + b"\n")
    replies.flush()
    os.close(out)
    os.close(err)
    os.write(ended, str(os.waitpid(child, 0)[1]).encode())
    os._exit(0)


def _interpret(order: dict[str, Any]) -> None:
    """Do what an interpreter does with its arguments. Its exit handlers run at the end of this process."""
    kind, program, *_ = order["arguments"]
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    ours = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = ["" if kind == "-c" else order["cwd"], *filter(None, ours), *_INSTALLED]
    _move(_OURS)
    sys.argv = order["arguments"][1:] if kind == "-m" else ["-c", *order["arguments"][2:]]
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1, errors="backslashreplace")
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


def _move(name: str) -> None:
    """Make a package that was imported beforehand look like the one that this interpreter would find.

    This applies to its files, and to the modules that it has not imported yet.
    """
    package = sys.modules.get(name)
    if package is not None:
        spec = importlib.machinery.PathFinder.find_spec(name)
        assert spec is not None and spec.submodule_search_locations is not None
        package.__spec__, package.__file__ = spec, spec.origin
        package.__path__ = list(spec.submodule_search_locations)


def _run_all(works: list[tuple[str, dict[str, Any]]], die_at: int | None) -> list[dict[str, Any]]:
    ready_out, ready_in = os.pipe()
    go_out, go_in = os.pipe()
    children: list[tuple[int, BinaryIO]] = []
    for name, arguments in works:
        reply_out, reply_in = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(go_in)
            _child(name, arguments, die_at, ready_in, go_out, reply_in)
        os.close(reply_in)
        children.append((process, os.fdopen(reply_out, "rb")))
    for _ in works:
        os.read(ready_out, 1)
    for descriptor in (go_in, go_out, ready_in, ready_out):
        os.close(descriptor)
    return [_outcome(process, reply) for process, reply in children]


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _child(name: str, arguments: dict[str, Any], die_at: int | None, ready: int, go: int, reply: int) -> None:
    outcome: dict[str, Any] = {"value": None, "error": "", "error_type": ""}
    try:
        # Not in the server: its next child may be an interpreter with our code from elsewhere.
        try:
            function = _function(name)
        finally:
            os.write(ready, b".")
        os.read(go, 1)  # ends when the server closes its end
        if die_at is not None:
            die_at_boundary(die_at)
        outcome["value"] = function(**arguments)
    except BaseException as error:
        outcome |= {"error": traceback.format_exc(), "error_type": type(error).__name__}
    with os.fdopen(reply, "wb") as out:
        out.write(json.dumps(outcome).encode())
    os._exit(0)


def _outcome(process: int, reply: BinaryIO) -> dict[str, Any]:
    with reply:
        content = reply.read()
    _, status = os.waitpid(process, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if killed:
        return {"value": None, "error": "", "error_type": "", "killed": True}
    assert status == 0, f"a child ended with status {status}"
    return {**json.loads(content), "killed": False}


def die_at_boundary(number: int) -> None:
    """Kill this process at its n-th I/O boundary: a file opened or renamed, a transaction begun or committed.

    Such a boundary is always between a call of the API and what is done about its outcome.
    """
    remaining = number

    def boundary(*_: Any) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" or (event == "open" and _is_data(arguments[0])):
            boundary()

    sys.addaudithook(audit)
    sa.event.listen(sa.engine.Engine, "begin", boundary)
    sa.event.listen(sa.engine.Engine, "commit", boundary)


def _is_data(path: Any) -> bool:
    return isinstance(path, str) and path.endswith((".jsonl", ".json", ".parquet", ".tmp"))


if __name__ == "__main__":
    order = _serve(sys.argv[1:])
    if order is not None:
        _interpret(order)
