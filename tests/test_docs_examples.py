"""The documentation's examples work: pipelines load, Python runs, commands and their options exist."""

from __future__ import annotations

import json
import re
import shlex
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
import yaml

from batch_assets import MessageBatchComponent
from batch_assets.cli import main as batch_assets_command
from batch_assets.core.prices.table import read_table
from tests.documentation import MINIMAL, PROJECT, SCHEMA, Block, blocks, pages
from tests.projects import Project, importable, strictly

# Raised in the code of Dagster's own components.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")


# --- Pipeline files --------------------------------------------------------------------------------------------


class Shelf(Project):
    """A project with the files that the pipelines on the pages name."""

    def put(self, document: Mapping[str, Any], number: int) -> dg.Definitions:
        """The definitions of a pipeline file with this content."""
        folder = self.folder / self.package / "defs" / f"block_{number}"
        folder.mkdir(parents=True)
        for text in _texts(document):
            for name in re.findall(r"(?:include|load\() *[\"']([\w.-]+)[\"']", text):
                (folder / name).write_text("[]" if Path(name).suffix in (".yaml", ".json") else "Some text.\n")
            if re.fullmatch(r"[\w.-]+\.json", text):
                (folder / text).write_text(json.dumps(SCHEMA))
            if re.fullmatch(r"[\w.-]+\.sql", text):
                (folder / text).write_text("select * from shown where day >= :partition_start")
            if re.fullmatch(r"[a-z_.]+:[A-Z]\w+", text):
                self._model(*text.split(":"))
        (folder / "defs.yaml").write_text(yaml.safe_dump(dict(document), allow_unicode=True))
        tree = dg.ComponentTree.for_project(self.folder)
        with strictly():
            return tree.build_defs_at_path(Path(folder.name))

    def _model(self, module: str, name: str) -> None:
        *packages, last = module.split(".")
        folder = self.folder
        for package in packages:
            folder = folder / package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        with (folder / f"{last}.py").open("a") as file:
            file.write(f"from pydantic import BaseModel\n\nclass {name}(BaseModel):\n    mood: str\n\n")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    made = Shelf(tmp_path_factory.mktemp("shelf"))
    with pytest.MonkeyPatch.context() as patch, importable(made, patch):
        patch.setenv("BATCH_ASSETS_ROOT", str(made.folder / "root"))
        yield made


def documents(block: Block) -> list[Any]:
    """The documents in a block of YAML; it may contain several pipelines, separated by ---."""
    return list(yaml.safe_load_all(block.text))


def as_pipeline(content: Any) -> dict[str, Any] | None:
    """A complete pipeline file, made from what a page shows of it; None for other YAML."""
    if not isinstance(content, dict):
        return None
    if "type" in content and "attributes" in content:
        return content
    if not content or not set(content) <= {*MessageBatchComponent.model_fields, "post_processing"}:
        return None
    fields = {name: value for name, value in content.items() if name != "post_processing"}
    dataset = fields.get("dataset", {})
    fields["dataset"] = (
        dataset if {"path", "files", "sql", "asset"} & set(dataset) else MINIMAL["dataset"] | dataset
    )
    fields["params"] = MINIMAL["params"] | fields.get("params", {})
    made = {"type": "batch_assets.MessageBatchComponent", "attributes": MINIMAL | fields}
    return made | {name: value for name, value in content.items() if name == "post_processing"}


# Other files that pages show, by their first key.
OTHERS = {"storage", "run_launcher", "load_from"}
YAML = [(block, shown) for block in blocks("yaml") for shown in documents(block)]


@pytest.mark.parametrize("number", range(len(YAML)), ids=lambda number: str(YAML[number][0]))
def test_every_pipeline_on_a_page_loads(shelf: Shelf, number: int) -> None:
    block, content = YAML[number]
    document = as_pipeline(content)
    if isinstance(content, dict) and set(content) == {"models"}:
        path = shelf.folder / "prices.yaml"
        path.write_text(yaml.safe_dump(content))
        assert set(content["models"]) <= set(read_table(path).models)
        return
    if document is None:
        assert isinstance(content, dict) and set(content) & OTHERS, (
            f"{block.location} is neither a pipeline nor known"
        )
        return
    if not str(document["type"]).startswith("batch_assets."):  # a subclass that its page shows
        document = document | {"type": "batch_assets.MessageBatchComponent"}
        known = set(MessageBatchComponent.model_fields)
        document["attributes"] = {k: v for k, v in document["attributes"].items() if k in known}
    loaded = shelf.put(document, number)
    assert len(list(loaded.resolve_all_asset_specs())) >= 3, block.location


# --- Python ----------------------------------------------------------------------------------------------------


# Pages whose Python needs neither data nor a server.
SELF_CONTAINED = ("docs/customizing.md", "docs/deploy.md", "docs/notifications.md")

# What pages show that is no dependency of ours.
NOT_INSTALLED = ("from airflow.",)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs_or_finds_its_imports(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(block.text, block.location, "exec")
    if block.location.startswith(SELF_CONTAINED):
        for name in re.findall(r"environ\[[\"'](\w+)[\"']\]", block.text):
            monkeypatch.setenv(name, "something")
        module = types.ModuleType("shown")
        monkeypatch.setitem(sys.modules, "shown", module)
        exec(code, vars(module) | {"__file__": str(tmp_path / "shown.py")})
        return
    for line in re.findall(r"^(?:from|import) (?!my_project\b).*$", _joined(block.text), re.M):
        if not line.startswith(NOT_INSTALLED):
            exec(line, {})


def _joined(text: str) -> str:
    return re.sub(r"\(\n(.*?)\)", lambda match: "(" + " ".join(match[1].split()) + ")", text, flags=re.S)


# --- Commands --------------------------------------------------------------------------------------------------


def _click_commands() -> dict[str, click.Command]:
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_dg_cli.cli import create_dg_cli
    from dagster_webserver.cli import dagster_webserver

    return {
        "batch-assets": batch_assets_command,
        "dg": create_dg_cli(),
        "dagster": create_dagster_cli(),
        "dagster-daemon": create_dagster_daemon_cli(),
        "dagster-webserver": dagster_webserver,
    }


@pytest.fixture(scope="module")
def programs() -> dict[str, click.Command]:
    return _click_commands()


def _shown_commands() -> Iterator[tuple[str, str]]:
    """(location, command) of every command in a shell block, and of those between backticks."""
    for block in blocks("sh", "bash", "shell", "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for command in re.split(r"\s(?:&&|\|)\s", line.removeprefix("$ ")):
                yield block.location, command
    for page in pages():
        for span in page.spans():
            if span.startswith(("batch-assets ", "make ", "dg ", "dagster ", ".venv/bin/")) and "|" not in span:
                yield page.name, span


_FILE = str(PROJECT / "workspace.yaml")  # replaces a path that only the reader knows
COMMANDS = list(_shown_commands())


def test_every_command_on_a_page_exists_with_its_options(programs: dict[str, click.Command]) -> None:
    tried, problems = 0, []
    for location, command in COMMANDS:
        words = [_FILE if word.startswith("$") else word for word in shlex.split(command, comments=True)]
        while words and (words[0] in ("export", "exec", "sudo") or re.match(r"[A-Z_]+=", words[0])):
            words.pop(0)
        if not words:
            continue
        program = Path(words[0]).name
        try:
            if program == "make":
                _check_make(words[1:])
            elif program in programs:
                _check(programs[program], program, words[1:], programs)
            else:
                continue
        except (AssertionError, click.ClickException) as error:
            problems.append(f"{location}: {command}\n    {error}")
        tried += 1
    assert not problems, "\n".join(problems)
    assert tried > 30


def _check(command: click.Command, name: str, words: list[str], programs: dict[str, click.Command]) -> None:
    """Parse the words as the command would, without running it."""
    if {"--help", "-h", "--version"} & set(words):
        return
    if not isinstance(command, click.Group):
        context = command.make_context(name, list(words), resilient_parsing=not words)
        inner = context.params.get("command")
        if name == "emulator" and inner and Path(inner[0]).name in programs:
            program = Path(inner[0]).name
            _check(programs[program], program, list(inner[1:]), programs)
        return
    context = command.make_context(name, list(words), resilient_parsing=not words)
    if not words:
        return
    remaining = [*context._protected_args, *context.args]
    subcommand = command.get_command(context, remaining[0])
    assert subcommand is not None, f"there is no command {remaining[0]!r}"
    if name == "scaffold":  # made of the components that are installed
        return
    _check(subcommand, remaining[0], remaining[1:], programs)


MAKEFILE = (PROJECT / "Makefile").read_text("utf-8")


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.M)
    for word in words:
        variable, value, _ = word.partition("=")
        if value:
            assert f"$({variable})" in MAKEFILE or f"$(if $({variable})" in MAKEFILE, f"no variable {variable}"
        else:
            assert word in targets, f"there is no target {word!r}"
