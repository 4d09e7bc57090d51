"""Assets that fail in place of those that are missing, so that the assets that read them load."""

from __future__ import annotations

import re

import dagster as dg

from batch_assets.core.pipeline.faults import Fault
from batch_assets.core.remedies import Stage
from batch_assets.dagster.broken.definitions import definitions_of
from batch_assets.dagster.broken.known import Known
from batch_assets.dagster.broken.missing_inputs import MissingInput, missing_inputs
from batch_assets.dagster.broken.report import report
from batch_assets.dagster.broken_file import BrokenFile, broken_in
from batch_assets.dagster.pipelines import pipeline_of, specs_in


def with_stand_ins(definitions: dg.Definitions) -> dg.Definitions:
    """Return definitions in which each asset that is missing and read fails with that, and report it."""
    names = set(broken_in(specs_in(definitions)))
    for key, missing in missing_inputs(definitions).items():
        name = re.sub(r"[^A-Za-z0-9_]", "_", "_".join(key.path))
        while name in names:
            name += "_asset"
        names.add(name)
        broken = _broken(name, key, missing)
        report(broken)
        stand_in = definitions_of(broken, Known(name, is_pipeline=False), {Stage.REQUESTS: key})
        definitions = dg.Definitions.merge(definitions, stand_in)
    return definitions


def _broken(name: str, key: dg.AssetKey, missing: MissingInput) -> BrokenFile:
    readers = []
    for spec in missing.needed_by:
        pipeline = pipeline_of(spec)
        readers.append(f"asset {spec.key.to_user_string()}" if pipeline is None else pipeline.source)
    faults = tuple(Fault(reader, None, "", missing.problem) for reader in readers)
    return BrokenFile(name, readers[0], faults, None, key)
