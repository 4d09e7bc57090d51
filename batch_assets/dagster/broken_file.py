"""A pipeline file that is broken, as metadata of the assets that it loads as."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from batch_assets.core.pipeline.faults import Fault
from batch_assets.dagster import keys
from batch_assets.dagster.metadata import markdown

PIPELINE_FILE_CHECK = "pipeline_file_is_valid"

# The last part of the key of the asset of a file that is no pipeline.
OF_NO_PIPELINE = "broken_file"


@dataclass(frozen=True)
class BrokenFile:
    """A pipeline file that does not load, as metadata of its assets. Dagster shows its path.

    Attributes:
        name: The name of the pipeline, as far as it is known.
        source: The file, as the user would open it.
        faults: What is wrong with it.
        resource_key: The key of its resource; `None` for the environment.
        checked: The asset that has the failing check.
    """

    name: str
    source: str
    faults: tuple[Fault, ...]
    resource_key: str | None
    checked: dg.AssetKey

    @property
    def defines_unknown_assets(self) -> bool:
        """Whether it is no pipeline file, so that the assets that it would define are not known."""
        return self.checked.path[-1] == OF_NO_PIPELINE

    def __fspath__(self) -> str:
        return self.source

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))

    @property
    def listed(self) -> str:
        """What is wrong, as a Markdown list."""
        return markdown.bullets(markdown.plain(str(fault)) for fault in self.faults)


def broken_of(spec: dg.AssetSpec) -> BrokenFile | None:
    """Return the broken file that an asset belongs to; `None` for other assets."""
    file = spec.metadata.get(keys.PIPELINE)
    return file if isinstance(file, BrokenFile) else None


def broken_in(specs: Iterable[dg.AssetSpec]) -> dict[str, BrokenFile]:
    """Return the broken files among asset specs, by the name of the pipeline."""
    return {file.name: file for file in map(broken_of, specs) if file is not None}


def check_result(broken: BrokenFile) -> dg.AssetCheckResult:
    """Return the result of the check of a broken file: it fails."""
    return dg.AssetCheckResult(
        asset_key=broken.checked,
        check_name=PIPELINE_FILE_CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        description=broken.listed,
    )
