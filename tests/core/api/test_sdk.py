"""The client is the SDK's own, imported without what the client does not need."""

from __future__ import annotations

import importlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.template import sdk_modules

from ..support import World

_CALLS = """
import json, os, sys
{before}
from batch_assets.core.api.client import ApiClient
from batch_assets.core.api.errors import ApiError
from batch_assets.core.api.sdk import sdk
from batch_assets.core.settings import Settings

def error_of(url):
    api = ApiClient(Settings.from_env({{"ANTHROPIC_BASE_URL": url}}))
    try:
        api.page(1)
        api.retrieve("msgbatch_unknown")
    except ApiError as error:
        return type(error).__name__
    finally:
        api.close()

errors = [error_of(os.environ["URL"])]
{between}
errors += [error_of(os.environ["URL"]), error_of("http://127.0.0.1:1")]
module = sdk().client.__module__.partition(".")[0]
print(json.dumps([errors, module, bool({{"anthropic", "aiohttp"}} & sys.modules.keys())]))
"""
_ERRORS = ["NotFoundError", "NotFoundError", "NotSentError"]
_CLIENT_ALONE = "batch_assets.core.template.sdk_modules_only._client"


def calls(url: str, *, before: str = "", between: str = "", **env: str) -> tuple[Any, str]:
    """Call the API in a new process: the errors, the client's package, whether the SDK is imported; the log."""
    done = subprocess.run(
        [sys.executable, "-c", _CALLS.format(before=before, between=between)],
        env={**os.environ, "URL": url, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_calls_do_not_import_the_rest_of_the_sdk(world: World) -> None:
    assert calls(world.emulator.url)[0] == [_ERRORS, "batch_assets", False]


def test_errors_are_those_of_the_client_also_when_the_sdk_is_imported_later(world: World) -> None:
    assert calls(world.emulator.url, between="import anthropic")[0] == [_ERRORS, "batch_assets", True]


def test_an_imported_sdk_is_the_client(world: World) -> None:
    assert calls(world.emulator.url, before="import anthropic")[0] == [_ERRORS, "anthropic", True]


def test_an_sdk_whose_client_needs_the_rest_is_imported_whole(world: World) -> None:
    unknown = f"sys.modules[{_CLIENT_ALONE!r}] = None"  # as if there were no such module
    assert calls(world.emulator.url, before=unknown)[0] == [_ERRORS, "anthropic", True]


def test_the_sdks_log_has_its_own_names(world: World) -> None:
    answer, log = calls(world.emulator.url, ANTHROPIC_LOG="debug")
    assert answer == [_ERRORS, "anthropic", True]
    assert "anthropic._base_client" in log


@pytest.mark.parametrize("package", ["types", "types.beta", "types.shared", "types.messages"])
def test_a_package_of_types_has_each_name_that_the_sdk_gives_it(package: str) -> None:
    whole = importlib.import_module(f"anthropic.{package}")
    alone = sdk_modules.module_alone(package)
    names = [name for name, value in vars(whole).items() if isinstance(value, type) and "__" not in name]
    assert len(names) > 5
    for name in names:
        ours, theirs = getattr(alone, name), getattr(whole, name)
        assert (name, ours.__qualname__) == (name, theirs.__qualname__)
        assert getattr(ours, "__annotations__", {}).keys() == getattr(theirs, "__annotations__", {}).keys()
    with pytest.raises(AttributeError, match="NoSuchType"):
        _ = alone.NoSuchType


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("from .texts import Text as Text\n", 1),
        ("from .texts import (\n    Text as Text,\n)\n", 1),
        ("from .texts import Text as Text\nText = 2\n", 2),  # it does more than to name
        ("from .texts import text as texts, Text as Text\n", 1),  # a name is also that of a module
    ],
)
def test_a_package_runs_its_init_if_it_does_more_than_to_name(tmp_path: Path, source: str, value: int) -> None:
    (tmp_path / "__init__.py").write_text(source)
    (tmp_path / "texts.py").write_text("Text, text = 1, 3\n")
    # Folders of tests have the same name again once they are removed, but modules stay.
    package = sdk_modules._TypesPackage(f"package_{secrets.token_hex(8)}", tmp_path / "__init__.py")
    sys.modules[package.__name__] = package
    assert package.Text == value
    assert package.texts == 3 or "as texts" not in source
