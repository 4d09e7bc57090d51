"""The variable that lets a skip because of a missing program fail cannot be set in vain."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("true", pytest.ExitCode.USAGE_ERROR),
        ("browser postgres", pytest.ExitCode.USAGE_ERROR),
        ("browser postgresql", pytest.ExitCode.OK),
    ],
)
def test_a_word_that_requires_nothing_is_refused(value: str, code: pytest.ExitCode) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", __file__]
    variables = os.environ | {"BATCH_ASSETS_REQUIRE_ALL": value}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    assert ("set it to 1 or to some of azurite browser mariadb postgresql" in done.stderr) == (code != 0)
