"""What is known of a pipeline whose file is broken, so that it keeps its asset keys and its sensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import ValidationError

from batch_assets.core.pipeline.faults import readable_part
from batch_assets.core.pipeline.partitions import PartitionsConfig
from batch_assets.dagster.broken.lacks import resource_problem
from batch_assets.dagster.partitions import definition_of

# Names of a pipeline file, in the order in which Dagster takes the first.
PIPELINE_FILES = ("defs.yaml", "defs.yml", "component.yaml", "component.py")
_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_RESOURCE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_PIPELINES = {"dataset", "params"}


@dataclass(frozen=True)
class Known:
    """What is known of a file that does not load.

    Attributes:
        name: The name of the pipeline as the file has it; if it has none, that of its folder or of the file.
        is_pipeline: Whether the file is one of a pipeline, and so has three assets.
        partitions: The partitions definition; `None` without partitions, or if they are wrong.
        resource_key: The key of the resource; `None` for the environment, or if it is wrong.
    """

    name: str
    is_pipeline: bool
    partitions: dg.PartitionsDefinition[Any] | None = None
    resource_key: str | None = None


def file_of(path: Path) -> Path:
    """Return the pipeline file of a folder, or the file itself."""
    if not path.is_dir():
        return path
    return path / next((name for name in PIPELINE_FILES if (path / name).is_file()), PIPELINE_FILES[0])


def yaml_text(file: Path) -> str | None:
    """Return the text of a YAML file; `None` if it is another file, or cannot be read."""
    if file.suffix not in (".yaml", ".yml"):
        return None
    try:
        return file.read_text("utf-8-sig")
    except (OSError, ValueError):
        return None


def name_of_path(path: Path) -> str:
    """Return the name of a folder, or of a file without its ending, as a part of asset keys."""
    return re.sub(r"[^A-Za-z0-9_]", "_", path.name if path.is_dir() else path.stem)[:100] or "pipeline"


def known_of(path: Path, document: int = 0) -> Known:
    """Return what is known of a file that does not load.

    Args:
        path: The folder of a YAML file, or a Python file.
        document: The position of the pipeline among the documents of the file.
    """
    text = yaml_text(file_of(path))
    if text is None:
        return Known(name_of_path(path), is_pipeline=False)
    content = readable_part(text, document)
    attributes = content.get("attributes")
    fields: Mapping[str, Any] = attributes if isinstance(attributes, Mapping) else {}
    name = str(fields.get("name", ""))
    name = name if _NAME.fullmatch(name) else name_of_path(path)
    # A file with nothing that can be read was a pipeline more likely than anything else.
    is_pipeline = "MessageBatchComponent" in text or bool(_OF_PIPELINES & fields.keys()) or "type" not in content
    key = fields.get("resource_key")
    return Known(
        name,
        is_pipeline,
        _partitions(name, fields.get("partitions")),
        key if isinstance(key, str) and _RESOURCE_KEY.fullmatch(key) and resource_problem(key) is None else None,
    )


def _partitions(name: str, written: Any) -> dg.PartitionsDefinition[Any] | None:
    if written is None:
        return None
    try:
        return definition_of(name, PartitionsConfig.model_validate(written))
    except (ValidationError, dg.DagsterError):
        return None
