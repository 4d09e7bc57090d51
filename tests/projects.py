"""A project in a folder, and a pipeline for it that a test may break, as a file and in Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest

PIPELINE = """
type: batch_assets.MessageBatchComponent
attributes:
  name: greetings
  dataset: {path: data/greetings.csv, key: id}
  params:
    model: claude-haiku-5-5
    max_tokens: 50
    messages: [{role: user, content: "{{ text }}"}]
"""
IN_PYTHON = """
from pathlib import Path
from batch_assets import build_message_batch_assets

assets = build_message_batch_assets(
    name="in_python",
    dataset={"path": "data/greetings.csv"},
    params={"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "{{ text }}"}]},
    folder=Path(__file__).parent,
)
"""


class Project:
    """A package from which Dagster loads pipeline files.

    Args:
        folder: Empty.
        package: Its name; None: a name that no other test uses.
    """

    def __init__(self, folder: Path, package: str | None = None) -> None:
        self.folder = folder
        self.package = package or f"project_{abs(hash(folder))}"
        (folder / "pyproject.toml").write_text(
            f'[tool.dg]\ndirectory_type = "project"\n\n[tool.dg.project]\nroot_module = "{self.package}"\n'
        )
        self.write("__init__.py", "")

    def write(self, name: str, text: str) -> None:
        """Write a file of the package."""
        path = self.folder / self.package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def load(self, pipeline: str | None = None, *, file_name: str = "defs.yaml") -> dg.Definitions:
        """Load the definitions strictly, as `dg check defs` does: a mistake in a pipeline file is an error.

        Args:
            pipeline: The text of its pipeline file from now on; None: as it is.
            file_name: The name of the pipeline file.
        """
        if pipeline is not None:
            self.write(f"defs/greetings/{file_name}", pipeline)
        with strictly():
            return dg.load_from_defs_folder(path_within_project=self.folder / self.package)


@contextmanager
def strictly() -> Iterator[None]:
    """Let a mistake in a pipeline file be an error, as `dg check defs` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
        yield


@contextmanager
def importable(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make its package importable, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(project.folder))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == project.package]:
        del sys.modules[name]


def whole_text(error: BaseException | None) -> str:
    """What Dagster shows of an error: the error and its causes."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
