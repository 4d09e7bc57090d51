"""The wheel and the sdist, built as for a release."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.documentation import PROJECT

# What the build reads, and what it must leave out.
_SOURCES = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "batch_assets",
    "tests",
    "data",
    "dagster.yaml",
)


@dataclass(frozen=True)
class Distribution:
    """The files of a release, in a folder of their own."""

    sdist: Path
    wheel: Path

    @classmethod
    def build(cls, folder: Path) -> Distribution:
        """Build the sdist from a copy of the sources, and the wheel from the sdist.

        setuptools writes into the folder of the sources, and would pack what an earlier build left there.
        """
        for name in _SOURCES:
            source = PROJECT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns(
                    "__pycache__", "output", "emulated", "emulator-state", "bench-large"
                )
                shutil.copytree(source, folder / "sources" / name, ignore=ignored)
            else:
                (folder / "sources").mkdir(exist_ok=True)
                shutil.copy(source, folder / "sources")
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
        done = subprocess.run(
            [*command, "--python", sys.executable, "--out-dir", str(folder / "dist"), str(folder / "sources")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        ((sdist,), (wheel,)) = ((folder / "dist").glob(pattern) for pattern in ("*.tar.gz", "*.whl"))
        return cls(sdist, wheel)

    @property
    def wheel_files(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    @property
    def sdist_files(self) -> set[str]:
        """The files below the folder that the sdist consists of."""
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()} - {""}
