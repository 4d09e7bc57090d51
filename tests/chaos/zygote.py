"""A process that has imported everything once and forks a child for each piece of work.

A new interpreter needs seconds to import what a stage uses, a fork milliseconds; the child is a separate process
all the same. The zygote has run all stages itself, so that no child has to import and compute again what every
process needs. Orders and answers are lines of JSON on standard input and output.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from tests.chaos import work
from tests.chaos.points import Points
from tests.core.support import texts, write_rows

# For a process that leaves leases behind, which must expire soon. All others have the usual ones, which they renew
# in time even on a busy machine.
LEASE_SECONDS = 0.5
_LOG_SHOWN = 1500  # characters
_LOG, _REPORT, _LAST_WORDS, _GO_ON = "child.log", "child.json", "killed-at.txt", "go-on"
_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Order:
    """One child process.

    Attributes:
        task: A name in `work.TASKS`.
        folder: The folder of the trial. It holds the root and what the child leaves to read.
        dataset: The folder of the dataset.
        env: Variables that the child sees in addition to the zygote's own.
        kill_at: The kill position, as `Points` takes it; None: not at a position.
        freeze: Whether the child is held at that position instead of killed.
        count: Whether to report the positions passed.
        kill_after: Seconds after which the child is killed, wherever it is; None: never.
        largest_file: Bytes beyond which the child cannot write a file, as on a full disk; None: no limit.
        doomed: Whether it is killed from outside.
        clock: Seconds by which the child's clock is ahead of this machine's.
    """

    task: str
    folder: str
    dataset: str
    max_requests: int
    env: dict[str, str] = field(default_factory=dict)
    kill_at: int | tuple[str, str] | None = None
    freeze: bool = False
    count: bool = False
    kill_after: float | None = None
    largest_file: int | None = None
    doomed: bool = False
    clock: float = 0.0

    @property
    def leaves_leases(self) -> bool:
        """Whether the child may end, or be held, without releasing its leases."""
        return self.doomed or (self.kill_at, self.kill_after, self.largest_file) != (None, None, None)


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        killed: Whether SIGKILL ended it.
        failed: Whether it ended with an error, which is in `log`.
        killed_at: The name of the kill position.
        points: The names of the kill positions passed, if `count` was set.
    """

    killed: bool
    failed: bool
    log: str
    killed_at: str = ""
    points: tuple[str, ...] = ()


class Child:
    """A running child process."""

    def __init__(self, zygote: Zygote, order: Order, own: Path) -> None:
        self._zygote, self._order, self._own = zygote, order, own
        self.pid = int(zygote.ask(fork=asdict(order), own=str(own))["pid"])

    def wait(self) -> End:
        """Wait for the child to end."""
        status = int(self._zygote.ask(wait=self.pid, kill_after=self._order.kill_after)["status"])
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        points = json.loads((self._own / _REPORT).read_text()) if self._order.count and status == 0 else ()
        log = (self._own / _LOG).read_text()[-_LOG_SHOWN:] if (self._own / _LOG).exists() else ""
        return End(killed, not killed and status != 0, log, self._last_words(), tuple(points))

    def kill(self) -> None:
        """Kill the child. Its process number cannot be reused before `wait` was called."""
        os.kill(self.pid, signal.SIGKILL)

    def freeze(self) -> str:
        """Wait until the child is held at its position, and freeze it there.

        Returns:
            The position's name; "" if the child ended before it.
        """
        last_words = self._own / _LAST_WORDS
        while not (last_words.exists() and last_words.read_text()):
            if self._zygote.ask(look=self.pid)["ended"]:
                return ""
            time.sleep(_LOOK_SECONDS)
        # Not while its leases are renewed: SQLite's lock would freeze with it.
        with closing(sqlite3.connect(Path(self._order.folder) / "root" / "ledger.db", timeout=30)) as ledger:
            ledger.execute("BEGIN IMMEDIATE")
            os.kill(self.pid, signal.SIGSTOP)
            self._zygote.ask(stopped=self.pid)
        return self._last_words()

    def wake(self) -> None:
        """Let the child continue from where it was frozen."""
        (self._own / _GO_ON).touch()
        os.kill(self.pid, signal.SIGCONT)

    def _last_words(self) -> str:
        path = self._own / _LAST_WORDS
        return path.read_text() if path.exists() else ""


class Zygote:
    """The zygote, as its parent sees it. Used as a context manager, by one thread.

    Args:
        url: The URL of the emulator with which it runs all stages.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Zygote:
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        env = {name: value for name, value in env.items() if not name.startswith("BATCH_ASSETS_")}
        env |= {"NO_PROXY": "127.0.0.1"}
        self._numbers = count()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote", self._url],
            env=env,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()  # it is ready: its own calls meet no fault
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, order: Order) -> Child:
        """Fork a child."""
        own = Path(order.folder) / f"process-{next(self._numbers)}"
        own.mkdir()
        return Child(self, order, own)

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and return the answer."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the zygote is gone")
        content: dict[str, Any] = json.loads(answer)
        return content


def main(url: str) -> None:
    """Take orders until standard input ends."""
    _warm_up(url)
    gc.collect()
    gc.freeze()
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_obey(json.loads(line))), flush=True)


def _warm_up(url: str) -> None:
    """Run all stages once. Nothing of it stays open, and no thread keeps running."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"BATCH_ASSETS_ROOT": f"{folder}/root", "BATCH_ASSETS_EMULATOR": url}
        env["BATCH_ASSETS_RECONCILE_GRACE"] = "0"
        write_rows(Path(folder, "rows.jsonl"), texts(5))
        with open_root(Settings.from_env(env)) as root:
            work.TASKS["finish from the dataset"](root, work.pipeline_in(Path(folder), 2))


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    if "fork" in order:
        return {"pid": _fork(Order(**order["fork"]), Path(order["own"]))}
    if "look" in order:
        status = os.waitid(os.P_PID, order["look"], os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return {"ended": status is not None}
    if "stopped" in order:
        os.waitid(os.P_PID, order["stopped"], os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return {}
    return {"status": _wait(order["wait"], order["kill_after"])}


def _fork(order: Order, own: Path) -> int:
    child = os.fork()
    if child == 0:
        _be_child(order, own)
    return child


def _wait(child: int, kill_after: float | None) -> int:
    """Return the child's wait status."""
    if kill_after is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, kill_after)
    # Wait for its end before reaping it, so that the alarm cannot kill another process with the same number.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return os.waitpid(child, 0)[1]


def _be_child(order: Order, own: Path) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    code = 1
    try:
        log = os.open(own / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(order.env, BATCH_ASSETS_ROOT=str(Path(order.folder) / "root"))
        if order.leaves_leases:
            os.environ["BATCH_ASSETS_LEASE_SECONDS"] = str(LEASE_SECONDS)
        if order.clock:
            now = time.time
            time.time = lambda: now() + order.clock
        pipeline = work.pipeline_in(Path(order.dataset), order.max_requests)
        points = Points(order.kill_at, own / _LAST_WORDS, own / _GO_ON if order.freeze else None)
        if order.kill_at is not None or order.count:
            points.install()
        _limit_files(order.largest_file)
        with open_root() as root:
            work.TASKS[order.task](root, pipeline)
        _limit_files(None)
        points.remove()
        if order.count:
            (own / _REPORT).write_text(json.dumps(points.names))
        code = 0
    except BaseException:
        sys.setprofile(None)
        _limit_files(None)
        traceback.print_exc()
    finally:
        sys.stdout.flush()  # `os._exit` would lose what is still buffered
        sys.stderr.flush()
        os._exit(code)


def _limit_files(size: int | None) -> None:
    most = resource.RLIM_INFINITY if size is None else size
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(sys.argv[1])
