"""The assets that others read and that definitions do not have. Dagster would fail for all of the definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import dagster as dg

from batch_assets.core.text import nearest
from batch_assets.dagster.broken_file import broken_in
from batch_assets.dagster.pipelines import made_by_code, specs_in


@dataclass(frozen=True)
class MissingInput:
    """An asset that is missing.

    Attributes:
        problem: What is wrong and what to do.
        needed_by: The assets that read it.
    """

    problem: str
    needed_by: list[dg.AssetSpec] = field(default_factory=list)


def missing_inputs(definitions: dg.Definitions) -> dict[dg.AssetKey, MissingInput]:
    """Return the assets that are read and that Dagster would not find, by key."""
    known = set[dg.AssetKey]()
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            known |= set(asset.keys)
        elif isinstance(asset, dg.AssetSpec | dg.SourceAsset):
            known.add(asset.key)
        else:  # it has keys that only the resolved definitions tell
            return {}
    specs = specs_in(definitions)
    # Dagster finds an asset by the last part of its key too, if it is the only one of the group.
    in_groups = Counter((spec.group_name, spec.key.path[-1]) for spec in specs)
    files = ", ".join(file.source for file in broken_in(specs).values() if file.defines_unknown_assets)
    missing = dict[dg.AssetKey, MissingInput]()
    for spec, key in _inputs(definitions):
        if key in known or (len(key.path) == 1 and in_groups[spec.group_name, key.path[0]] == 1):
            continue
        missing.setdefault(key, MissingInput(_problem(key, known, files))).needed_by.append(spec)
    return missing


def _inputs(definitions: dg.Definitions) -> Iterator[tuple[dg.AssetSpec, dg.AssetKey]]:
    """Yield the assets whose values are read, each with an asset that reads it."""
    for asset in made_by_code(definitions):
        if not asset.is_executable:
            continue
        names = {key: name for name, key in asset.keys_by_input_name.items()}
        for spec in asset.specs:
            for dep in spec.deps:
                name = names.get(dep.asset_key)
                if name is not None and not asset.node_def.input_def_named(name).dagster_type.is_nothing:
                    yield spec, dep.asset_key


def _problem(key: dg.AssetKey, known: Iterable[dg.AssetKey], broken_files: str) -> str:
    name = key.to_user_string()
    names = sorted(other.to_user_string() for other in known)
    of_last_part = (other for other in names if other.split("/")[-1] == key.path[-1])
    if meant := next(of_last_part, None) or nearest(name, names):
        remedy = f"did you mean {meant}?"
    elif broken_files:
        remedy = f"correct the file that defines it; these are broken: {broken_files}"
    else:
        remedy = "give the key of an asset that the code location has, such as schema/table"
    return f"there is no asset {name}: {remedy}"
