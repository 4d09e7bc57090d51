"""Work on lists in processes of their own, in order.

A worker process is a fresh interpreter, not a fork: the run has threads. It reads tasks from its standard input,
so it ends with the run, however the run ends.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO

from batch_assets.core.errors import BatchAssetsError

_START = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve()"
# Tasks in progress for each process: the next one is ready when it is done with one.
_AHEAD = 2


class WorkerProcessError(BatchAssetsError):
    """A worker process has failed or was killed."""


class WorkerProcesses:
    """Calls a function in several processes. It is a context manager, and starts them for the first task.

    Args:
        count: The number of processes.
        prepare: Called once in each process with `given`. It returns the function that does a task. It must be a
            function of a module: the processes import it.
        given: The argument of `prepare`. Like tasks and what is returned for them, it is pickled.
        task: What the processes do, for errors: such as "renders rows".
        undone: What has not happened when one of them fails, for errors: a sentence without its period.
    """

    def __init__(
        self,
        count: int,
        prepare: Callable[[Any], Callable[[Any], Any]],
        given: Any,
        *,
        task: str,
        undone: str,
    ) -> None:
        self._count, self._task, self._undone = count, task, undone
        self._first = pickle.dumps((prepare.__module__, prepare.__qualname__, given))
        self._started: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> WorkerProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._started:
            worker.stop()  # a thread that waits for it gets an error
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def map(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield what the function returns for each task, in order. At most a few tasks are in progress.

        Raises:
            WorkerProcessError: When a process has failed or was killed.
        """
        if self._threads is None:
            self._start()
        assert self._threads is not None
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            if len(waiting) == _AHEAD * self._count:
                yield waiting.popleft().result()
            waiting.append(self._threads.submit(self._do, task))
        while waiting:
            yield waiting.popleft().result()

    def _start(self) -> None:
        self._threads = ThreadPoolExecutor(self._count, "worker-process")
        for _ in range(self._count):
            worker = _Worker(self._first, self._task, self._undone)
            self._started.append(worker)
            self._idle.put(worker)

    def _do(self, task: Any) -> Any:
        worker = self._idle.get()
        try:
            return worker.do(task)
        finally:
            self._idle.put(worker)


class _Worker:
    """One process.

    Args:
        first: What it reads first.
        task: See `WorkerProcesses`.
        undone: See `WorkerProcesses`.
    """

    def __init__(self, first: bytes, task: str, undone: str) -> None:
        command = [sys.executable, "-c", _START.format(path=sys.path, module=__name__)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._first: bytes | None = first
        self._task, self._undone = task, undone

    def do(self, task: Any) -> Any:
        """Let it do a task, and return what it returns."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if self._first is not None:
                self._process.stdin.write(self._first)
                self._first = None
            _write(self._process.stdin, task)
            is_done, returned = pickle.load(self._process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise WorkerProcessError(f"{self._end()}. {self._undone}: run it again") from None
        if not is_done:
            raise WorkerProcessError(
                f"a process that {self._task} has failed: {returned}. Without BATCH_ASSETS_PROCESSES, "
                "the run shows where"
            )
        return returned

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close(pipe)

    def _end(self) -> str:
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"has ended with exit code {code}"
        hint = " (does the machine have enough memory?)" if code == -signal.SIGKILL else ""
        return f"a process that {self._task} {how}{hint}"


def serve() -> None:
    """Do the tasks that standard input has, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run, and that ends standard input
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what other code prints is no answer
    tasks: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    do: Callable[[Any], Any] | None = None
    while True:
        task = tasks.get()
        try:
            if do is None:
                module, name, given = task
                do = getattr(importlib.import_module(module), name)(given)
                continue
            answer = (True, do(task))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        with suppress(BrokenPipeError):  # the run has ended, and this process ends too
            _write(answers, answer)


def _read(tasks: SimpleQueue[Any]) -> None:
    """Read tasks. Without a run there are none, so the process ends at once, whatever it does."""
    try:
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _write(pipe: BinaryIO | Any, value: Any) -> None:
    pipe.write(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    pipe.flush()


def _close(pipe: Any) -> None:
    with suppress(OSError):  # it had not taken all of a task
        pipe.close()
