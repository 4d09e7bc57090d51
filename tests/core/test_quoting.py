"""Text from data cannot leave its quotes: in commands, in Markdown, in a terminal and in a notification."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from batch_assets.cli import remedies as cli_remedies
from batch_assets.cli.text import partition_name
from batch_assets.core.quoting import printable, shell_quoted
from batch_assets.core.remedies import AcceptRendering, RunStage, Stage
from batch_assets.dagster import remedies as dagster_remedies
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.metadata.sample_rows import _how_to_ask_again

HOSTILE = [
    "'; touch pwned; '",
    "$(touch pwned)",
    "`touch pwned`",
    "a' --yes 'b",
    "``x` <img src=x onerror=alert(1)> ``",
    "`",
    "\\' ; touch pwned #",
    "| [click](javascript:alert(1)) ![x](http://a/b)",
    "line 1\n\n# heading\n<script>alert(1)</script>",
    "\x1b]0;title\x07\x1b[2J\r",
    "\u202etxt.exe",
    "&lt;b&gt; *bold* _it_ ~~gone~~ <https://a.b>",
    "\x80\x9b31m\\",
    "!history",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_command_gets_exactly_the_text(text: str, tmp_path: Path) -> None:
    commands = [
        cli_remedies.run_command("p", text).removeprefix("batch-assets run p --partition "),
        cli_remedies.as_text(RunStage(Stage.REQUESTS, "p", text)).partition("--partition ")[2],
        cli_remedies.as_text(AcceptRendering("p", text))
        .partition("--partition ")[2]
        .removesuffix(" --accept-rendering"),
    ]
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", f"printf %s {command}"], cwd=tmp_path, capture_output=True, env={"LC_ALL": "C.UTF-8"}
        )
        assert done.stdout.decode() == text
        assert not (tmp_path / "pwned").exists()
        assert command.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_text_and_nothing_of_it_is_markup(text: str) -> None:
    """Parsed by a library that follows CommonMark, with tables and strikethrough."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = printable(text)
    (_, code, _) = parser.parse(f"Before {markdown.code(text)} after.")
    assert [child.type for child in code.children or []] == ["text", "code_inline", "text"]
    assert (code.children or [])[1].content == shown
    (_, plain, _) = parser.parse(f"Before {markdown.plain(text)} after.")
    assert "".join(child.content for child in plain.children or []) == f"Before {shown} after."
    assert {child.type for child in plain.children or []} <= {"text", "text_special"}
    cells = parser.parse(markdown.table([text, "b"], [{text: text}]).md_str or "")
    inline = [token for token in cells if token.type == "inline"]
    assert len(inline) == 4
    for token in (inline[0], inline[2]):
        assert {child.type for child in token.children or []} <= {"text", "text_special"}
    note = parser.parse(_how_to_ask_again("p", text))
    assert [token.type for token in note] == ["paragraph_open", "inline", "paragraph_close"]
    codes = [child.content for child in note[1].children or [] if child.type == "code_inline"]
    assert codes[1:3] == [shown, printable(f"batch-assets run p --partition {shell_quoted(text)} --retry-failed")]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_and_a_page_show_it_on_one_line(text: str) -> None:
    assert partition_name("p", text).isprintable()
    assert dagster_remedies.materialize(Stage.REQUESTS, "p", text).isprintable()


def test_usual_keys_stay_as_they_are() -> None:
    for text in ("2026-11-20", "de", "Größe L", "a/b", "日本", "👩‍💻"):
        assert printable(text) == text
    assert shell_quoted("2026-11-20") == "2026-11-20"
    assert shell_quoted("Größe L") == "'Größe L'"
    assert printable("a\nb\tc\x1b", lines=True) == "a\nb\tc\\x1b"


@given(st.text())
def test_any_text_can_be_printed(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not set(shown) & set(map(chr, range(32)))
    assert shell_quoted(text).encode()
