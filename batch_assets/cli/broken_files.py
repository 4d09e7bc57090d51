"""The project's broken pipeline files, for commands that do not load the definitions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from batch_assets.core.settings import find_project

_CHECK_SECONDS = 60.0
_Version = tuple[int, int]


class BrokenFiles:
    """Finds what is wrong with the project's pipeline files, and looks again only at files that changed."""

    def __init__(self) -> None:
        self._project = find_project()
        self._seen: dict[Path, _Version] | None = None
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """Return what is wrong, a line for each mistake, as `batch-assets check` prints it."""
        from batch_assets.core.pipeline.suspects import defs_folder

        try:
            folder = defs_folder(self._project)
        except ValueError as error:  # the file that names the folder is not TOML, or not UTF-8
            return [f"{self._project / 'pyproject.toml'}: this is not TOML: {error}"]
        now = _versions(folder) if folder is not None else {}
        if now != self._seen:
            self._seen, self._lines = now, self._find(folder)
        return self._lines

    def _find(self, folder: Path | None) -> list[str]:
        from batch_assets.core.pipeline.suspects import any_looks_broken, pipeline_files

        files = pipeline_files(folder) if folder is not None else []
        if not any_looks_broken(files, self._project):
            return []
        # In a process of its own: it loads the user's code, and would not load it again after a change.
        command = [sys.executable, "-m", "batch_assets.cli", "check"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS)
        except subprocess.TimeoutExpired:
            return [f"`batch-assets check` did not end within {_CHECK_SECONDS:.0f} seconds"]
        return (done.stdout or done.stderr).splitlines() if done.returncode else []


def _versions(folder: Path) -> dict[Path, _Version]:
    """Return the modification time and size of each file of a folder: prompts and schemas count, too."""
    versions = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            try:
                state = path.stat()
            except OSError:
                continue
            versions[path] = (state.st_mtime_ns, state.st_size)
    return versions
