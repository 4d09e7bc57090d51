"""Which pipeline file of a project has which name: no two may have the same."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import dagster as dg

from batch_assets.dagster.broken.known import name_of_path
from batch_assets.dagster.broken.lacks import refused_names


class Claimant(NamedTuple):
    """A pipeline file, or one of the documents of it.

    Attributes:
        path: The folder of the file, or a Python file.
        document: The position among the documents of the file.
    """

    path: Path
    document: int = 0


@dataclass(frozen=True)
class Claim:
    """The name that a pipeline file has.

    Attributes:
        name: The name.
        source: The file, as the user would open it.
        is_valid: Whether the file could be read.
    """

    name: str
    source: str
    is_valid: bool


class Claims:
    """The names of the pipeline files of a component tree, which loads all before it builds the first."""

    def __init__(self) -> None:
        self._claims: dict[Claimant, Claim] = {}
        self._shown: dict[Claimant, str] = {}

    def note(self, claimant: Claimant, claim: Claim) -> None:
        """Record the name of a pipeline file. A later record of the same file replaces it."""
        self._claims[claimant] = claim

    def others(self, claimant: Claimant, name: str) -> list[str]:
        """Return the files that keep a pipeline from having its name, which they have too."""
        rivals = self._with(name, valid_only=True)
        if (owner := self._owner(name, rivals)) is not None:
            return [] if owner == claimant else [self._claims[owner].source]
        return [self._claims[rival].source for rival in rivals if rival != claimant]

    def shown_name(self, claimant: Claimant, name: str) -> str:
        """Return the name that the assets of a broken file are shown under: its own, unless another has it.

        No two files get the same one, and a file gets the same one each time.
        """
        if claimant not in self._shown:
            self._shown[claimant] = self._free_name(claimant, name)
        return self._shown[claimant]

    def _free_name(self, claimant: Claimant, name: str) -> str:
        shown = set(self._shown.values()) | refused_names()
        rivals = self._with(name, valid_only=True)
        owner = self._owner(name, rivals) or min(self._with(name), default=claimant)
        if owner == claimant and name not in shown:
            return name
        taken = shown | {claim.name for claim in self._claims.values()}
        of_path = name_of_path(claimant.path)
        numbered = (f"{of_path}_{number}" for number in count(2))
        return next(free for free in chain([of_path], numbered) if free not in taken)

    def _with(self, name: str, *, valid_only: bool = False) -> list[Claimant]:
        return [
            claimant
            for claimant, claim in self._claims.items()
            if claim.name == name and (claim.is_valid or not valid_only)
        ]

    @staticmethod
    def _owner(name: str, rivals: list[Claimant]) -> Claimant | None:
        """Return who may have a name: the only one, or else the only one whose folder has that name.

        Two files of one name are most often a pipeline and the copy of its folder, and the pipeline goes on.
        """
        files = {(rival.path.resolve(), rival.document) for rival in rivals}
        if len(rivals) > 1 and len(files) == 1:  # one file, to which symbolic links lead again
            return min(rivals, key=lambda rival: len(rival.path.parts))
        if len(rivals) > 1:
            rivals = [rival for rival in rivals if name_of_path(rival.path) == name]
        return rivals[0] if len(rivals) == 1 else None


_of_trees: WeakKeyDictionary[object, Claims] = WeakKeyDictionary()


def claims_of(tree: dg.ComponentTree) -> Claims:
    """Return the claims of a component tree, which end with it."""
    # The tree itself is a tuple, which has no weak references.
    return _of_trees.setdefault(tree.state_tracker, Claims())
