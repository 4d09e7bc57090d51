"""`batch-assets emulator`: alone, and around another command."""

from __future__ import annotations

import json
import re
import signal
import sys
import urllib.request
from typing import Any

import pandas as pd
import pytest

from batch_assets.emulator import Emulator
from tests.emulator.model_server import chat, serving

from .support import COMMAND, Project

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


def test_a_running_one_has_its_own_errors(project: Project, emulator: Emulator) -> None:
    port = emulator.url.rpartition(":")[2]
    options = ("--port", port, "--errors", "expired=0.5")
    done = project.run("emulator", *options, "--", sys.executable, "-c", SHOW)
    assert done.returncode == 1
    assert f"an emulator is already running at {emulator.url}, and may have other answers. Stop it" in done.stderr


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


def test_shares_of_errors(project: Project) -> None:
    project.add_pipeline("asked", [f"text {number}" for number in range(60)], retry={"max_attempts": 1})
    del project.env["BATCH_ASSETS_EMULATOR"]
    options = ("--port", "0", "--latency", "0", "--errors", "overloaded=0.3, permission_error=0.2,expired=0.2")
    run = (sys.executable, *COMMAND, "run", "asked")
    done = project.run("emulator", *options, "--", *run)
    assert done.returncode == 3, done.stdout + done.stderr
    assert all(reason in done.stdout for reason in ("overloaded_error", "permission_error", "expired"))
    assert int(re.findall(r"succeeded +([0-9]+)", done.stdout)[-1]) in range(5, 35)


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ("sleepy=0.1", "'sleepy' is not a kind of error; kinds: expired, canceled, refusal, "),
        ("expired", "give expired a share of the requests, as in expired=0.02"),
        ("expired=2", "the share of expired is 2: give a number from 0 to 1"),
        ("expired=nan", "the share of expired is nan: give a number from 0 to 1"),
        ("overloaded=0.1,overloaded_error=0.1", "overloaded_error has two shares: leave out one of them"),
        ("expired=0.6,canceled=0.6", "the shares of --errors sum to 1.2, which is more than 1"),
    ],
)
def test_wrong_shares_are_refused(bare_project: Project, shares: str, problem: str) -> None:
    done = bare_project.run("emulator", "--port", "0", "--errors", shares)
    assert done.returncode == 2
    assert problem in done.stderr
    assert not (bare_project.folder / "data").exists()


def test_a_port_that_does_not_exist_is_refused(bare_project: Project) -> None:
    done = bare_project.run("emulator", "--port", "99999")
    assert done.returncode == 2
    assert "Invalid value for '--port': 99999 is not in the range 0<=x<=65535." in done.stderr


def test_a_model_answers_a_pipeline(bare_project: Project) -> None:
    """The whole product on the answers of another server: from rows to a table with columns of the schema."""
    schema = {
        "type": "object",
        "properties": {"letters": {"type": "integer"}},
        "required": ["letters"],
        "additionalProperties": False,
    }
    bare_project.add_pipeline("counted", ["a", "bbb", "cc"], output_schema="schema.json")
    (bare_project.folder / "batch_assets" / "defs" / "counted" / "schema.json").write_text(json.dumps(schema))
    around = ("--", sys.executable, *COMMAND, "run", "counted")
    with serving(lambda body: chat(json.dumps({"letters": len(text_of(body))}))) as model:
        source = ("--answers-from", model.url, "--answers-model", "local")
        done = bare_project.run_in_new_interpreter("emulator", "--port", "0", *source, *around)
    assert done.returncode == 0, done.stderr
    assert f"{model.url}/v1/chat/completions" in done.stdout
    (path,) = bare_project.folder.rglob("results.parquet")
    table = pd.read_parquet(path)
    assert table["letters"].tolist() == [1, 3, 2]
    assert set(table["input_tokens"]) == {11}
    assert {body["model"] for _, _, body in model.calls} == {"local"}
    assert {body["response_format"]["json_schema"]["schema"]["required"][0] for _, _, body in model.calls} == {
        "letters"
    }


def text_of(body: Any) -> str:
    content = body["messages"][-1]["content"]
    assert isinstance(content, str)
    return content


def test_answers_of_a_model_that_cannot_be(bare_project: Project, emulator: Emulator) -> None:
    """Options that contradict each other, and a running emulator, which may have other answers."""
    port = emulator.url.rpartition(":")[2]
    for options, reason in (
        (("--answers-from", "127.0.0.1:1"), "--answers-from"),
        (("--answers-model", "local"), "--answers-model needs --answers-from"),
        (("--answers-from", "http://127.0.0.1:1", "--port", port, "--", "true"), "already running"),
    ):
        done = bare_project.run("emulator", *options)
        assert done.returncode != 0
        assert reason in done.stderr and "Traceback" not in done.stderr
