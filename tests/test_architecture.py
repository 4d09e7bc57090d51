"""docs/architecture.md and the code: paths, wings, the order of the ways, and the map of what to change where."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache

import pytest

from tests.documentation import PROJECT, page

PAGE, WINGS = page("docs/architecture.md"), page("docs/adr/0001-wings.md")
PACKAGE = PROJECT / "batch_assets"
FOLDERS = ("core/", "cli/", "dagster/", "emulator/", "testing/", "defs/", "definitions/")
MAP = "Where to change what"
# A path, and the function that it is about.
_NAMED_FUNCTION = re.compile(r"`([a-z_/]+\.py)`\s+\(`([\w.]+)`\)")
# Topics of the map -> what the code of a module that belongs to it contains.
SIGNS = {
    "what becomes of a row or a request": r"\b(RowFate|RequestFate)\.[A-Z]",
    "which answers are followed by another request": (
        r"^class (FollowUpRules|FollowUpLines|FollowUps|ChainSums|ToolResults)\b"
        r"|^def (follow_up_params|counts_in|chains_of|calls_to_answer)\b"
        r"|\bfile\.steps\("
    ),
    "a column of the request index": r"store\.request_index import|^class IndexWriter",
    "an error type of a result line, and whether it may pass": (
        r"\bPASSING_ERRORS\b|ERRORED, ErrorType|unknown_result_type|\"error_type\": ErrorType"
        r"|^class ErrorType"
    ),
    "what a user can do about an error or a problem": (
        r"case .*\b(RunStage|CancelBatch|ListBatches|StartEmulator|NamePartition|GiveLedgerUrl|AcceptRendering)\("
        r"|case .*\b(RestoreFile|AskTheRest)\("
        r"|^(Submission)?Remedy = "
    ),
    "what a pilot is, and when it is judged": (
        r"^class (PilotSample|PilotNeed|PilotState|PilotReport|Registrar)\b"
    ),
    "what `cache: auto` does": (
        r"^class (SharedPrompt|PromptCaching|Stub|BreakpointWriter)\b|^def with_breakpoints\b"
    ),
    "a price": r"\"prices\.yaml\"|^PRICES =",
    "what was spent": (
        r"^def (fates_of|use_of|sent_batches|build_spend|write_spend)\b|^class (FileAmounts|SpendLog)\b"
    ),
    "which rows are asked by live calls, and how": (
        r"^class (LiveCalls|LiveJournal|RescueOutlook|LiveGroup)\b|^def (rescue|store_live_answers)\b"
        r"|^def _write_live_calls\b|^live_group =|live_groups:"
    ),
    "which requests are sent first, and which wait for more": (
        r"^class (Priority|RowPriorities|PriorityOrder|Enough)\b"
    ),
    "what becomes of a broken pipeline file": (
        r"^def (load_from_defs_folder|faults_in|known_of|broken_definitions|broken_of_location|unreadable_files)\b"
        r"|^class BrokenFilesError\b|^def readable_part\b"
    ),
    "what is shown before the first run": r"\b(try_pipeline|previewed_rows)\(|^def only_root\b",
    "who answers in the emulator": r"^class (Asking|AnswerSource)\b|^def (emulated_message|chat_body)\b",
    "a check of the table": r"\bAssetCheck(Spec|Result)\b|results\.examine import|^class Examination",
    "how files get to an object store and back": r"\b(ObjectStore|open_file_system|open_file)\b[(:]",
    "when a table replaces the one that users read": (
        r"\bwaiting_parts\(|^def (with_table|table_of|is_complete)\b|\.held_back = "
    ),
    "what `read_results` returns": r"^class (WantedColumns|StoredTables)\b|^def (read_results|_to_pandas)\b",
    "a key of metadata": r"\"batch_assets/",
    "the name or place of a file under the root": (
        r"^def (submission_parts|pipelines_of)\b|^class PartName\b|^(ROOT_FILE|PRIVATE_FOLDERS) ="
    ),
    "a setting of dagster.yaml": r"\"dagster\.yaml\"",
    "a check of `batch-assets doctor`": r"^def findings\b",
    "which images and PDFs are sent": r"\b(read_media|check_media|media_problem)\(",
    "what templates print for a value": (
        r"\bRendering\.(STORED|OWN|WRITTEN)\b|^def (shown_values|text_of|written_number)\b|^class Rendering\("
    ),
    "how the kind of a column is found, recorded and applied": (
        r"^def (updated|recorded_kinds|csv_kind|fitting|line_of|read_by)\b|^class ColumnType\b"
    ),
    "what a build or a join compares to find that nothing has changed": (
        r"\b(inputs_digest|join_inputs|JoinedTable)\("
    ),
    "a field of the pipeline file": (
        r"\((ConfigBlock|\w+Config, Block)\b|PipelineFields\(TypedDict|^class ConfigBlock"
    ),
    "a format of dataset files": r"^READERS\b|^class (Csv|Parquet)Reader|isinstance\(\w+, (Csv|Parquet)Reader\)",
    "a kind of dataset": (
        r"\bDatasetKind\.[A-Z]|\.is_files\b|(?<!`)\bdataset\.(pattern|asset|sql is)\b|\.key_(column|name)\b"
        r"|\bupstream_key\("
    ),
    "a column of the results": (
        r"\b(BEFORE_OUTPUT|AFTER_OUTPUT|COUNTED_ONCE|RESULT_NAMES|ParsedLine|DESCRIPTIONS)\b|^RESPONSE_SCHEMA ="
        r"|^_KEPT ="
    ),
    "a result type of the API": (
        r"\bResultType\.(SUCCEEDED|ERRORED|EXPIRED|CANCELED)\b|(?<![.\w])RESULT_TYPES\b|^COUNTS =|\bin COUNTS\b"
    ),
    "a result type that only the table has": r"\bResultType\.(PENDING|REJECTED)\b",
    "a refusal of a call": (
        r"except .*\b(RefusedError|UnknownOutcomeError|NotSentError|NotFoundError|ApiError)\b"
        r"|^class RefusedError|^ACTIONS =|\bSubmissionStoppedError\(|^def (stop_ready|put_off|give_back_stopped)\b"
    ),
    "a state of a file, batch or submission": (
        r"\b(File|Batch|Submission)Move\.[A-Z]|^class \w+State\(|\((File|Batch)State, \d+\)"
    ),
    "a reason to wait, or a next step": (
        r"\b(Waiting|SendReason|Joining)\.[A-Z]|planning\.steps import|\bnext_change\("
    ),
}


def _paths(text: str) -> list[str]:
    return [span for span in text.split("`")[1::2] if "/" in span and " " not in span and "<" not in span]


def _sections() -> dict[str, str]:
    """The text under each heading."""
    parts = re.split(r"^#+ (.+)\n", PAGE.text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _topics() -> dict[str, str]:
    """The topics of the map, and the text about each."""
    text = PAGE.text.split(f"\n## {MAP}\n")[1].split("\n## ")[0]
    sections = re.findall("^### (.+)$", text, re.M)
    rows: dict[str, str] = dict(PAGE.table(MAP))
    return rows | {f"{title[0].lower()}{title[1:]}": _sections()[title] for title in sections}


@cache
def _sources() -> dict[str, str]:
    return {str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}


def _functions(path: str) -> set[str]:
    """The functions, classes and constants of a module, and `Class.method`."""
    names: set[str] = set()
    for node in ast.parse((PACKAGE / path).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
            names |= {*methods, *(f"{node.name}.{method}" for method in methods)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_every_path_exists() -> None:
    paths = [path for path in PAGE.spans() if path.startswith(FOLDERS)]
    assert len(paths) > 60
    assert [path for path in paths if not (PACKAGE / path).exists()] == []


def test_every_function_exists() -> None:
    named = _NAMED_FUNCTION.findall(PAGE.text)
    assert len(named) > 20
    assert [(path, name) for path, name in named if name not in _functions(path)] == []


def test_the_wings_are_those_of_the_contract_in_its_order() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "wings")
    described = [
        [path.removeprefix("core/").removesuffix("/").removesuffix(".py") for path in _paths(row[0])]
        for row in PAGE.table("The wings")
        if "core/" in row[0]
    ]
    assert described == [layer.split(" | ") for layer in layers]
    drawing = next(block.text for block in WINGS.blocks() if "dagster" in block.text)
    assert drawing.split("\n\n")[0].splitlines() == ["cli", "dagster | dashboard", *layers]


def test_the_map_has_a_sign_for_every_topic() -> None:
    assert set(_topics()) == set(SIGNS)


@pytest.mark.parametrize("topic", SIGNS)
def test_the_map_names_every_module_that_distinguishes_the_values(topic: str) -> None:
    text = _topics()[topic]
    modules = {path for path, source in _sources().items() if re.search(SIGNS[topic], source, re.M)}
    assert modules, "the sign is in no module"
    assert sorted(modules - set(_paths(text))) == []
