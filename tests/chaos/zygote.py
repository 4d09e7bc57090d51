"""A process that has imported everything once and forks a child for each piece of work.

A fresh interpreter needs seconds to import what a stage uses, a fork milliseconds; the child is a process of
its own all the same. Orders and answers are lines of JSON on standard input and output.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anthropic

from batch_assets.core.root import Root
from tests.chaos import work
from tests.chaos.points import Points

# Leases must run out soon, and a slow machine must still renew them in time.
LEASE_SECONDS = 0.5
_LOG_SHOWN = 1500  # characters
_LOG, _REPORT, _LAST_WORDS = "child.log", "child.json", "killed-at.txt"


@dataclass(frozen=True)
class Order:
    """One child process.

    Attributes:
        task: a name in `work.TASKS`.
        folder: of the trial; the root is in it, and what the child leaves to read.
        dataset: folder of the dataset.
        env: variables that the child sees besides the zygote's own.
        kill_at: the kill position, as `Points` takes it; None: at none of them.
        count: report the positions passed.
        kill_after: seconds after which it is killed, wherever it is; None: never.
    """

    task: str
    folder: str
    dataset: str
    max_requests: int
    env: dict[str, str] = field(default_factory=dict)
    kill_at: int | tuple[str, str] | None = None
    count: bool = False
    kill_after: float | None = None


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        killed: by SIGKILL, and not by its own end.
        failed: it ended with an error; `log` holds it.
        killed_at: the kill position's name.
        points: names of the kill positions passed, where they were asked for.
    """

    killed: bool
    failed: bool
    log: str
    killed_at: str = ""
    points: tuple[str, ...] = ()


class Zygote:
    """The process, as its parent sees it. A context manager; one order at a time."""

    def __enter__(self) -> Zygote:
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        env = {name: value for name, value in env.items() if not name.startswith("BATCH_ASSETS_")}
        env |= {"BATCH_ASSETS_LEASE_SECONDS": str(LEASE_SECONDS), "NO_PROXY": "127.0.0.1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            env=env,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, order: Order) -> End:
        """Forks a child and waits for its end."""
        folder = Path(order.folder)
        status = self._status(order)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        points = json.loads((folder / _REPORT).read_text()) if order.count and status == 0 else ()
        last_words = folder / _LAST_WORDS
        killed_at = last_words.read_text() if last_words.exists() else ""
        last_words.unlink(missing_ok=True)
        log = (folder / _LOG).read_text()[-_LOG_SHOWN:] if (folder / _LOG).exists() else ""
        return End(killed, not killed and status != 0, log, killed_at, tuple(points))

    def _status(self, order: Order) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the zygote is gone")
        return int(json.loads(answer)["status"])


def main() -> None:
    """Takes orders until standard input ends."""
    # What the core imports at the first call to the API.
    anthropic.Anthropic(api_key="none", http_client=anthropic.DefaultHttpxClient()).close()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps({"status": _fork(Order(**json.loads(line)))}), flush=True)


def _fork(order: Order) -> int:
    """The child's wait status."""
    child = os.fork()
    if child == 0:
        _be_child(order)
    if order.kill_after is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, order.kill_after)
    # Its end is seen before it is reaped: the alarm never meets another process of that number.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return os.waitpid(child, 0)[1]


def _be_child(order: Order) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    folder = Path(order.folder)
    code = 1
    try:
        log = os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(order.env, BATCH_ASSETS_ROOT=str(folder / "root"))
        pipeline = work.pipeline_in(Path(order.dataset), order.max_requests)
        points = Points(order.kill_at, folder / _LAST_WORDS)
        if order.kill_at is not None or order.count:
            points.install()
        with Root.from_env() as root:
            work.TASKS[order.task](root, pipeline)
        points.remove()
        if order.count:
            (folder / _REPORT).write_text(json.dumps(points.names))
        code = 0
    except BaseException:
        sys.setprofile(None)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
