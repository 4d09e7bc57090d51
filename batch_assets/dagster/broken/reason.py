"""Why a file does not load: the error that Dagster has wrapped, as faults of the file."""

from __future__ import annotations

import codecs
import traceback
from pathlib import Path

from dagster import DagsterInvalidDefinitionError
from dagster_shared.error import DagsterUnresolvableSymbolError
from pydantic import ValidationError

from batch_assets.core.errors import BatchAssetsError, ConfigError
from batch_assets.core.io.file_errors import why_no_file
from batch_assets.core.pipeline.faults import (
    PIPELINE_TYPE,
    Fault,
    depth_of,
    faults_of,
    field_line,
    readable_part,
    unreadable,
)
from batch_assets.core.quoting import printable
from batch_assets.dagster.broken.known import yaml_text
from batch_assets.dagster.broken.model_faults import model_faults
from batch_assets.dagster.broken.template_faults import template_fault

# How Dagster's texts begin about a type that is no component, one without attributes, a module without variables.
_NO_COMPONENT, _NO_FIELDS = "Component type ", "Component is not resolvable"
_NO_VARIABLES = "No template vars found"
# Maps and lists within each other: about as many as Dagster can read.
_DEEP = 100
# What a file that is loaded may raise. A script may end with `sys.exit()`.
RAISED = (Exception, SystemExit)


def innermost(error: BaseException) -> BaseException:
    """Return the error that the user has to know: the first one of this project, or else the one that began it."""
    while not isinstance(error, BatchAssetsError):
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None:
            return error
        error = inner
    return error


def faults_in(error: BaseException, file: Path, source: str, project: Path, document: int = 0) -> list[Fault]:
    """Return what is wrong with a file that does not load.

    Args:
        error: What its loading raised.
        file: The file.
        source: The file, as the user would open it.
        project: The project's folder.
        document: The position of the pipeline among the documents of the file.
    """
    text = yaml_text(file)
    if text is not None and (problem := unreadable(source, text)) is not None:
        return faults_of(problem, text, document)
    inner = innermost(error)
    if text is not None and (fault := _of_its_type(inner, text, source)) is not None:
        return [fault]
    if text is not None and isinstance(inner, RecursionError) and depth_of(text) > _DEEP:
        return [Fault(source, None, "", "its maps and lists are nested too deeply to be read: nest them less")]
    if isinstance(inner, ConfigError):
        return faults_of(inner, text if inner.source == source else None, document)
    if isinstance(inner, ValidationError):
        return model_faults(inner, text, source, document)
    if text is not None and (fault := template_fault(error, text, source, document)) is not None:
        return [fault]
    if text is None and (unreadable_file := _unreadable_file(inner, file)) is not None:
        return [Fault(source, unreadable_file[0], "", unreadable_file[1])]
    line = _line(inner, file)
    kind = "" if isinstance(inner, BatchAssetsError) else f"{type(inner).__name__}: "
    problem_text = printable(f"{kind}{str(inner).strip()}", lines=True)
    where = "" if line is not None else _where(inner, project)
    return [Fault(source, line, "", f"{problem_text}{where}")]


def _unreadable_file(error: BaseException, file: Path) -> tuple[int | None, str] | None:
    """Return why a YAML file is no text, with the line if it is known; `None` if it is one."""
    if file.suffix not in (".yaml", ".yml"):
        return None
    if isinstance(error, OSError) and (problem := why_no_file(error)) is not None:
        return None, f"it cannot be read: {problem}"
    if not isinstance(error, UnicodeDecodeError):
        return None
    if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None, "it is UTF-16: save it as UTF-8"
    line = error.object[: error.start].count(b"\n") + 1
    return line, f"it is not UTF-8 (byte 0x{error.object[error.start]:02x}): save it as UTF-8"


def _of_its_type(error: BaseException, text: str, source: str) -> Fault | None:
    """Return what is wrong with a `type` or a `template_vars_module`; `None` if they are right.

    Dagster imports those of all documents of a file before it loads the first.
    """
    reason = printable(str(error).strip().removesuffix("."))
    for document in range(text.count("\n---") + 1):
        content = readable_part(text, document)
        written, module = str(content.get("type", "")), str(content.get("template_vars_module", ""))
        field, problem = "type", None
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            if written.startswith(f"{error.name}."):
                problem = f"there is no {written} ({reason}): {PIPELINE_TYPE}"
            elif module and error.name.endswith(module.removeprefix(".")):
                field, problem = "template_vars_module", f"there is no module {error.name}: correct its name"
        elif isinstance(error, DagsterInvalidDefinitionError) and reason.startswith(_NO_VARIABLES):
            if module and reason.endswith(module):
                field, problem = "template_vars_module", f"{module} has no function with @dagster.template_var"
        elif isinstance(error, DagsterInvalidDefinitionError) and reason.startswith(_NO_FIELDS):
            if not written.endswith(".MessageBatchComponent"):
                problem = f"{written} has no attributes in YAML: {PIPELINE_TYPE}"
        elif written.rpartition(".")[2] not in reason:
            continue
        elif isinstance(error, DagsterUnresolvableSymbolError):
            problem = f"there is no {written} ({reason}): {PIPELINE_TYPE}"
        elif isinstance(error, DagsterInvalidDefinitionError) and reason.startswith(_NO_COMPONENT):
            problem = f"{written} is no component for a YAML file: {PIPELINE_TYPE}"
        if problem is not None:
            return Fault(source, field_line(text, field, document), field, problem)
    return None


def _line(error: BaseException, file: Path) -> int | None:
    """Return the line of a Python file that raised an error; `None` if it was in another file."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return lines[-1] if lines else None


def _where(error: BaseException, project: Path) -> str:
    """Return which line of the project's own Python files raised an error, in parentheses; "" if none did."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(project) and "site-packages" not in frame.filename
    ]
    return f" ({Path(frames[-1].filename).relative_to(project)}:{frames[-1].lineno})" if frames else ""
