"""Load a file that is broken, as assets that fail."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from batch_assets.dagster.broken.claims import Claim, Claimant, Claims
from batch_assets.dagster.broken.definitions import broken_definitions
from batch_assets.dagster.broken.known import file_of, known_of
from batch_assets.dagster.broken.reason import faults_in
from batch_assets.dagster.broken.report import report


def source_of(path: Path, project: Path) -> str:
    """Return the pipeline file of a path as the user would open it: relative to the project if it is inside."""
    file = file_of(path)
    return str(file.relative_to(project)) if file.is_relative_to(project) else str(file)


def note_broken(claimant: Claimant, project: Path, claims: Claims) -> None:
    """Record the name of a broken file, so that its assets get keys that no other file has."""
    known = known_of(claimant.path, claimant.document)
    claims.note(claimant, Claim(known.name, source_of(claimant.path, project), is_valid=False))


def load_as_broken(error: BaseException, claimant: Claimant, project: Path, claims: Claims) -> dg.Definitions:
    """Return the definitions of a file that does not load, and report what is wrong with it.

    Args:
        error: What its loading raised.
        claimant: The file.
        project: The project's folder.
        claims: The names of the project's pipelines.

    Raises:
        BrokenFilesError: When Dagster checks the definitions.
    """
    known = known_of(claimant.path, claimant.document)
    source = source_of(claimant.path, project)
    faults = faults_in(error, file_of(claimant.path), source, project, claimant.document)
    name = claims.shown_name(claimant, known.name)
    broken, definitions = broken_definitions(known, name, source, faults)
    report(broken)
    return definitions
