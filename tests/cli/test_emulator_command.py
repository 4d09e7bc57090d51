"""`batch-assets emulator`: alone, and around another command."""

from __future__ import annotations

import signal
import sys
import urllib.request

from batch_assets.emulator import Emulator

from .support import Project

SHOW = "import os, sys; print(os.environ['BATCH_ASSETS_EMULATOR']); sys.exit(7)"


def test_around_a_command(bare_project: Project) -> None:
    done = bare_project.run_in_new_interpreter("emulator", "--port", "0", "--", sys.executable, "-c", SHOW)
    assert done.returncode == 7, done.stderr
    url = done.stdout.strip()
    assert url.startswith("http://127.0.0.1:")
    assert (bare_project.folder / "data" / "emulator").is_dir()


def test_a_running_one_is_used(project: Project, emulator: Emulator) -> None:
    port = emulator.url.rpartition(":")[2]
    done = project.run("emulator", "--port", port, "--", sys.executable, "-c", SHOW)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[-1] == emulator.url


def test_port_taken(bare_project: Project, emulator: Emulator) -> None:
    port = emulator.url.rpartition(":")[2]
    done = bare_project.run("emulator", "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr and "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_alone(bare_project: Project) -> None:
    process = bare_project.start("emulator", "--port", "0")
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/_emulator/requests") as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_unknown_command(bare_project: Project) -> None:
    done = bare_project.run("emulator", "--port", "0", "--", "no-such-command-here")
    assert done.returncode == 1
    assert "no-such-command-here" in done.stderr and "Traceback" not in done.stderr
