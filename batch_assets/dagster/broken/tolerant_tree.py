"""A component tree that goes on without the files that are broken.

It uses parts of Dagster that are not public, so it is imported only after Dagster has failed to load the project.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.core.context import ComponentDeclLoadContext
from dagster.components.core.decl import (
    ComponentDecl,
    ComponentLoaderDecl,
    DefsFolderDecl,
    build_filesystem_component_decl_from_context,
)
from dagster.components.core.defs_module import ComponentPath, find_defs_or_component_yaml

from batch_assets.dagster.broken.claims import Claimant, claims_of
from batch_assets.dagster.broken.load_as_broken import load_as_broken, note_broken
from batch_assets.dagster.broken.reason import RAISED


def load_one_by_one(path_within_project: Path) -> dg.Definitions:
    """Load the definitions of a project, each file on its own.

    Args:
        path_within_project: A path within the project.

    Raises:
        Exception: Any, when no single file is the reason.
    """
    tree = _TolerantTree.for_project(path_within_project)
    root = tree.decl_load_context.for_component_loc(ComponentPath.from_path(tree.defs_module_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # as Dagster's own loader does
        # Of the function that the loader calls for a Python file.
        warnings.filterwarnings("ignore", r"Function `load_definitions_from_module", dg.PreviewWarning)
        tree.state_tracker.set_cache_data(tree.defs_module_path, component_decl=_declaration(root))
        return tree.build_defs()


class BrokenComponent(dg.Component):
    """What a broken file loads as.

    Args:
        error: What its loading raised.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the assets that fail."""
        return load_as_broken(
            self._error, Claimant(context.path), context.project_root, claims_of(context.component_tree)
        )


class _TolerantTree(dg.ComponentTree):
    """A component tree that a component which does not load, or has no definitions, does not stop."""

    def load_structural_component_at_loc(self, loc: Path | str | object) -> dg.Component:
        try:
            return super().load_structural_component_at_loc(loc)  # type: ignore[arg-type]
        except RAISED as error:
            if not _is_file(loc):
                raise
            note_broken(_claimant(loc), self.project_root, claims_of(self))
            return BrokenComponent(error)

    def build_defs_at_path(self, loc: Path | str | object) -> dg.Definitions:
        try:
            return super().build_defs_at_path(loc)  # type: ignore[arg-type]
        except RAISED as error:
            if not _is_file(loc):
                raise
            return load_as_broken(error, _claimant(loc), self.project_root, claims_of(self))


def _is_file(loc: object) -> bool:
    """Whether a location is that of a file, and not of a folder of files."""
    if not isinstance(loc, ComponentPath):
        return False
    return loc.file_path.is_file() or find_defs_or_component_yaml(loc.file_path) is not None


def _claimant(loc: object) -> Claimant:
    assert isinstance(loc, ComponentPath)
    return Claimant(loc.file_path, loc.instance_key if isinstance(loc.instance_key, int) else 0)


def _declaration(context: ComponentDeclLoadContext) -> ComponentDecl[Any] | None:
    """Return the declaration of a folder or file, in which each broken file has one that fails on its own."""
    declaration, error = _try_declaration(context)
    if error is None:
        return declaration
    path = context.path
    if not path.is_dir() or find_defs_or_component_yaml(path) is not None:
        return _broken_declaration(context, error)
    return DefsFolderDecl(
        context=context,
        loc=ComponentPath.from_path(path),
        children=dict(_declarations(context, path)),
        source_tree=None,
        component_file_model=None,
    )


def _try_declaration(
    context: ComponentDeclLoadContext,
) -> tuple[ComponentDecl[Any] | None, BaseException | None]:
    # Those of files in the folder are tried outside of it, since this error would become the context of theirs.
    try:
        return build_filesystem_component_decl_from_context(context), None
    except RAISED as error:
        return None, error


def _broken_declaration(context: ComponentDeclLoadContext, error: BaseException) -> ComponentLoaderDecl:
    """Return the declaration of a file that Dagster cannot read or import."""

    def load(context: ComponentDeclLoadContext) -> BrokenComponent:
        note_broken(Claimant(context.path), context.project_root, claims_of(context.component_tree))
        return BrokenComponent(error)

    return ComponentLoaderDecl(context=context, loc=ComponentPath.from_path(context.path), component_node_fn=load)


def _declarations(context: ComponentDeclLoadContext, folder: Path) -> Iterator[tuple[Path, ComponentDecl[Any]]]:
    for path in sorted(folder.iterdir()):
        if path.name == "__pycache__" or path.name.startswith("."):
            continue
        child = _declaration(context.for_component_loc(ComponentPath.from_path(path)))
        if child is not None:
            yield path, child
