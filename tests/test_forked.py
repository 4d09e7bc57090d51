"""A forked interpreter does what a new one does, and its end is reported."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.forked import ForkServer


def test_code_runs_in_its_folder_and_environment(python: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('this is mine')")
    code = "import mine, os, sys; print(sys.argv, os.getcwd(), dict(os.environ)); sys.exit('in vain')"
    done = python.python("-c", code, "an argument", cwd=tmp_path, env={"ONLY": "this"}, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "in vain\n"
    assert done.stdout == f"this is mine\n['-c', 'an argument'] {tmp_path} {{'ONLY': 'this'}}\n"


def test_our_own_code_comes_from_the_pythonpath(python: ForkServer, tmp_path: Path) -> None:
    (outcome,) = python.run(("batch_assets.core.text:dollars", {"usd": 1.0}))
    assert outcome.value == "$1.0000"
    (tmp_path / "package" / "batch_assets").mkdir(parents=True)
    (tmp_path / "package" / "batch_assets" / "__init__.py").write_text("print('another')")
    env = {"PYTHONPATH": str(tmp_path / "package")}
    done = python.python("-c", "import batch_assets", cwd=tmp_path, env=env, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("another\n", "", 0)


def test_an_error_and_a_kill_are_reported(python: ForkServer) -> None:
    done = python.python("-c", "raise ValueError('no')", timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: no\n")
    child = python.start("-c", "import time; print('here', flush=True); time.sleep(3600)")
    assert child.stdout.readline() == "here\n"
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    child.kill()
    assert child.communicate(60) == ("", "")
    assert child.returncode == -signal.SIGKILL
