"""The core is independent: it imports neither Dagster nor the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import batch_assets
from batch_assets.core.client_settings import CREDENTIALS

_CORE = Path(batch_assets.__file__).parent / "core"
_MODULES = sorted(
    ".".join(("batch_assets", *path.relative_to(_CORE.parent).with_suffix("").parts)).removesuffix(".__init__")
    for path in _CORE.rglob("*.py")
)
_CHECK = """
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
print(sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[1].split(","))))
"""


def _loaded(forbidden: str, *modules: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, forbidden, *modules], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_no_module_of_the_core_imports_dagster_the_command_line_or_a_store() -> None:
    assert len(_MODULES) > 30
    assert _loaded("dagster,dagster_shared,click,rich", *_MODULES) == "[]"
    assert _loaded("boto3,botocore,s3fs,gcsfs,adlfs", "batch_assets", *_MODULES) == "[]"
    assert _loaded("json,pyarrow", *_MODULES) == "['json', 'pyarrow']"  # proves that the check works


def test_the_package_itself_imports_neither_dagster_nor_the_sdk() -> None:
    assert _loaded("dagster,anthropic,pyarrow,pandas", "batch_assets") == "[]"


def test_the_types_of_databases_are_imported_for_a_sink_only() -> None:
    stages = ["requests.build", "batches.submit", "results.run", "erase.later", "sink.write"]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]];"
    code += "print('sqlalchemy.dialects.mysql' in sys.modules)"
    for more, imported in ([], "False"), (["sink.put_rows"], "True"):
        names = [f"batch_assets.core.{module}" for module in [*stages, *more]]
        done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == imported


def test_no_module_of_the_core_imports_a_layer_above_it() -> None:
    above = "import sys, importlib; [importlib.import_module(n) for n in sys.argv[1:]];"
    above += "ours = [n for n in sys.modules if n.startswith('batch_assets.')];"
    above += "print([n for n in ours if not n.startswith('batch_assets.core')])"
    done = subprocess.run([sys.executable, "-c", above, *_MODULES], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"])
def test_the_names_of_credentials_are_those_the_sdk_knows(name: str) -> None:
    import anthropic

    sources = [path.read_text() for path in Path(anthropic.__file__).parent.rglob("*.py")]
    assert name in CREDENTIALS
    assert any(name in source for source in sources)
