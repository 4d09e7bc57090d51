"""The pytest plugin: its cost when it is not used, the snapshots of prompts, and answers that are left over."""

from __future__ import annotations

import json
import re

import pytest

# pytester forgets modules that the runs within it import, and some of these cannot be imported twice.
from batch_assets.testing import emulator as emulator
from batch_assets.testing import prompts as prompts

pytest_plugins = ["pytester"]

TEST = """
from pathlib import Path

def test_prompts(prompt_snapshot):
    prompt_snapshot(Path("asked"), [{"id": 7, "text": "one"}, {"id": 8, "text": ""}])
"""
SNAPSHOT = """row 7
{
  "model": "claude-haiku-5-5",
  "max_tokens": 9,
  "messages": [
    {
      "role": "user",
      "content": "Read: one"
    }
  ]
}
row 8: rejected, so it is not sent: empty_prompt: params.messages[0].content: the text is empty
"""


def write_pipeline(pytester: pytest.Pytester, content: str) -> None:
    messages = [{"role": "user", "content": content}]
    attributes = {
        "name": "asked",
        "dataset": {"path": "none.csv", "key": "id"},
        "params": {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": messages},
    }
    folder = pytester.path / "asked"
    folder.mkdir(exist_ok=True)
    document = {"type": "batch_assets.MessageBatchComponent", "attributes": attributes}
    (folder / "defs.yaml").write_text(json.dumps(document))


def test_a_run_that_does_not_use_it_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("batch_assets")
            ours = {name for name in sys.modules if name.partition(".")[0] == "batch_assets"}
            assert ours == {"batch_assets", "batch_assets.testing", "batch_assets.testing.plugin"}
            others = {"anthropic", "dagster", "jinja2", "numpy", "pandas", "pyarrow", "sqlalchemy", "uvicorn"}
            assert not others & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_prompts_are_compared_with_a_file(pytester: pytest.Pytester) -> None:
    write_pipeline(pytester, "{% if text %}Read: {{ text }}{% endif %}")
    pytester.makepyfile(TEST)
    file = pytester.path / "prompts" / "asked.txt"
    missing = pytester.runpytest_inprocess()
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["*prompts/asked.txt does not exist: run pytest with --update-prompts*"])
    pytester.runpytest_inprocess("--update-prompts").assert_outcomes(passed=1)
    assert file.read_text() == SNAPSHOT
    assert [path.name for path in file.parent.iterdir()] == ["asked.txt"]
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    write_pipeline(pytester, "{% if text %}Look at: {{ text }}{% endif %}")
    changed = pytester.runpytest_inprocess()
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(['E*-      "content": "Read: one"', 'E*+      "content": "Look at: one"'])
    assert file.read_text() == SNAPSHOT


def test_a_mistake_shows_the_line_of_the_test_and_no_frames_of_the_package(pytester: pytest.Pytester) -> None:
    write_pipeline(pytester, "{{ text }}")
    pytester.makepyfile(
        """
        from pathlib import Path

        def test_key(run_pipeline):
            run_pipeline(Path("asked"), [{"text": "one"}])

        def test_row(run_pipeline):
            run_pipeline(Path("asked"), ["one"])

        def test_prompt(prompt_snapshot):
            prompt_snapshot(Path("asked"), [{"id": "1"}])

        def test_fault(batch_emulator):
            batch_emulator.faults([{"match": {"verb": "GET"}}])

        def test_function(batch_emulator, run_pipeline):
            batch_emulator.answers(lambda request: request.body)
            run_pipeline(Path("asked"), [{"id": "1", "text": "one"}])
        """
    )
    failed = pytester.runpytest_inprocess()
    failed.assert_outcomes(failed=5)
    locations = re.findall(r"^([^\s:]+\.py):[0-9]+: ", failed.stdout.str(), re.M)
    assert len(locations) >= 5 and set(locations) == {f"{pytester.path.name[:-1]}.py"}, locations
    failed.stdout.fnmatch_lines(
        [
            "E*dataset.key: the test's table has no column 'id'; its columns: text",
            "E*the test's table, row 0 (from 0) is of the type str: make it a dict",
            "E*the template reads 'text', which is not a column of the test's table; its columns: id",
            "E*ValueError: the emulator refuses /_emulator/faults: unknown field in match: verb",
            "E*AttributeError: 'AskedRequest' object has no attribute 'body'",
        ]
    )


def test_answers_that_no_request_asked_for_fail_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_left_over(batch_emulator):
            batch_emulator.answers({7: "seven", "R-9": "nine"})

        def test_that_failed_before(batch_emulator):
            batch_emulator.answers({7: "seven"})
            assert 0
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*no request was sent for the row keys 7, 'R-9' of the answers*"])


def test_the_project_is_that_of_the_file_and_not_that_of_pytest(pytester: pytest.Pytester) -> None:
    write_pipeline(pytester, "{{ text }}")
    package = pytester.mkdir("inner") / "own"
    (package / "defs").mkdir(parents=True)
    (pytester.path / "asked").rename(package / "defs" / "asked")
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(
        "from pathlib import Path\nimport dagster as dg\n"
        "defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    (package.parent / "pyproject.toml").write_text('[tool.dg]\n[tool.dg.project]\nroot_module = "own"\n')
    (package.parent / "test_inner.py").write_text(
        "def test_rows(prompt_snapshot):\n    prompt_snapshot('asked', [{'id': 7, 'text': 'one'}])\n"
    )
    pytester.runpytest_inprocess("--update-prompts", package.parent).assert_outcomes(passed=1)
    assert (package.parent / "prompts" / "asked.txt").read_text().startswith("row 7\n")
