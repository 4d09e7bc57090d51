"""`load_from_defs_folder`: load what can be loaded, and the rest as assets that fail."""

from __future__ import annotations

import logging
from pathlib import Path

import dagster as dg

from batch_assets.core.settings import Settings, find_project
from batch_assets.dagster.broken.lacks import Lacks, lacks_in, refusing
from batch_assets.dagster.broken.reason import RAISED
from batch_assets.dagster.broken.report import collecting, report
from batch_assets.dagster.broken.stand_ins import with_stand_ins
from batch_assets.dagster.broken_file import BrokenFile
from batch_assets.dagster.loading import is_validation

_log = logging.getLogger("batch_assets")


def load_from_defs_folder(*, path_within_project: Path | str, is_whole: bool = False) -> dg.Definitions:
    """Load a project's definitions as Dagster's function of this name does, but without the files that are broken.

    A file that Dagster cannot read or import, or whose component does not load, becomes an asset that fails with
    its error. All others load and run.

    Args:
        path_within_project: A path within the project.
        is_whole: Whether the folder has all assets and resources of the code location. Then a `dataset.asset`
            without an asset and a `resource_key` without a resource are mistakes of their file; otherwise Dagster
            fails for all of them.

    Raises:
        BrokenFilesError: When `dg check defs` checks the definitions and files are broken. Names all of them.
        SettingsError: When it does, and a variable of the environment cannot be read: no file is wrong then.
    """
    path = Path(path_within_project)
    if is_validation():
        Settings.from_env(project=find_project(path), needs_ledger=False)
    with collecting() as broken:
        definitions = _load_what_can_be_loaded(path, broken)
        refused = Lacks()
        # A pipeline that is broken by this may take an asset away that another needs.
        while is_whole and (lacks := refused | lacks_in(definitions)) != refused:
            refused = lacks
            with refusing(refused):
                definitions = _load_what_can_be_loaded(path, broken)
        if is_whole:
            definitions = with_stand_ins(definitions)
    report(*broken)
    return definitions


def _load_what_can_be_loaded(path_within_project: Path, broken: list[BrokenFile]) -> dg.Definitions:
    del broken[:]
    definitions, error = _load(path_within_project)
    if definitions is None:
        del broken[:]
        definitions = _load_one_by_one(path_within_project, error)
    return definitions


def _load(path_within_project: Path) -> tuple[dg.Definitions | None, BaseException | None]:
    # The errors of single files must not be raised while this one is handled: it would become their context.
    try:
        return dg.load_from_defs_folder(path_within_project=path_within_project), None
    except RAISED as error:
        return None, error


def _load_one_by_one(path_within_project: Path, error: BaseException | None) -> dg.Definitions:
    """Load the definitions, each file on its own.

    Raises:
        BaseException: The error, when no single file is the reason.
    """
    try:
        from batch_assets.dagster.broken.tolerant_tree import load_one_by_one

        return load_one_by_one(path_within_project)
    except RAISED as second:  # the whole project is wrong, or this version of Dagster loads it in another way
        _log.debug("the files of the project cannot be loaded one by one", exc_info=second)
        raise (error or second) from None
