"""Print the verdict of every case: `python -m corpora` in the folder `tests`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .cases import CASES
from .judge import problem_of
from .shapes import SHAPES


def main() -> int:
    """Judge every case. Returns the number of wrong verdicts."""
    wrong = 0
    for case in [*CASES, *SHAPES]:
        with tempfile.TemporaryDirectory() as folder:
            problem = problem_of(case, Path(folder))
        wrong += problem is not None
        print(f"{'WRONG' if problem else 'right':6} {case.name}{f': {problem}' if problem else ''}")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
