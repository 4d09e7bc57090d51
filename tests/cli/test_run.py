"""`batch-assets run`: its exit codes and output, and that it may be stopped and started again."""

from __future__ import annotations

import signal
from pathlib import Path

import pandas as pd

from batch_assets.cli.find_pipeline import UnknownPipelineError

from .support import BATCHES, Project


def read_results(project: Project, name: str) -> pd.DataFrame:
    table: pd.DataFrame = pd.read_parquet(project.folder / "data" / "emulated" / name / "results")
    return table


def test_every_row_answered(project: Project) -> None:
    """Passing failures, and creates that the API wants later, are retried automatically."""
    assert project.emulator is not None
    project.add_pipeline("asked", [f"text {number}" for number in range(20)])
    project.emulator.faults(
        [
            {
                "match": {"method": "POST", "path": BATCHES, "nth": 1},
                "action": {"status": 429, "headers": {"retry-after": "0.2"}},
            },
            {
                "match": {"method": "POST", "path": BATCHES, "nth": 2},
                "action": {"error_mix": {"overloaded_error": 0.5}},
            },
        ]
    )
    done = project.run_in_new_interpreter("run", "asked")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "requests: 20 rows, 20 distinct requests, 20 to send" in done.stdout
    assert "waiting: " in done.stdout and "429" in done.stdout
    assert "attempt 2" in done.stdout
    assert done.stdout.rstrip().endswith("results in data/emulated/asked/results/results.parquet")
    table = read_results(project, "asked")
    assert set(table.result_type) == {"succeeded"}
    again = (table.attempts == 2).sum()
    assert again > 0
    assert [batch["requests"] for batch in project.accepted()] == [20, again]


def test_results_in_a_database_as_well(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"], sink={"url": "sqlite:///warehouse.db"})
    done = project.run("run", "asked")
    assert done.returncode == 0, done.stderr
    assert "  table asked: 2 rows inserted or updated\n" in done.stdout
    url = f"sqlite:///{project.folder}/warehouse.db"
    stored = pd.read_sql("select id, response_text from asked order by id", url)
    assert stored.equals(read_results(project, "asked")[["id", "response_text"]].astype(stored.dtypes))


def test_too_many_failed(project: Project) -> None:
    project.add_pipeline("strict", ["one", "two", "three", ""])
    done = project.run("run", "strict")
    assert done.returncode == 3, done.stderr
    assert "  succeeded                  3\n" in done.stdout
    assert "  rejected                   1  empty_prompt\n" in done.stdout
    assert read_results(project, "strict").result_type.tolist() == ["succeeded"] * 3 + ["rejected"]


def test_refused_by_the_api(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two"])
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "no such thing"}}
    rule = {"match": {"method": "POST", "path": BATCHES}, "action": {"status": 400, "body": body}}
    project.emulator.faults([rule])
    done = project.run("run", "asked")
    assert done.returncode == 1
    assert "no such thing" in done.stderr
    assert "Traceback" not in done.stderr
    assert "no such thing" in project.run("status").stdout
    assert set(read_results(project, "asked").result_type) == {"pending"}


def test_a_mistake_in_a_pipeline_file(project: Project) -> None:
    params = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": [], "stream": True}
    project.add_pipeline("asked", ["one"], params=params)
    done = project.run("run", "asked")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: batch_assets/defs/asked/defs.yaml")
    assert "params.stream" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_pipeline(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    done = project.run("run", "askd")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: there is no pipeline 'askd' in this project; did you mean 'asked'? Its pipelines: asked\n"
    )


def test_the_error_about_an_unknown_pipeline_is_bounded() -> None:
    text = str(UnknownPipelineError("p200", [f"p{number}" for number in range(100)]))
    assert text == (
        "there is no pipeline 'p200' in this project; did you mean 'p20'? Its pipelines: "
        "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9 and 90 more"
    )


def test_no_api_named(bare_project: Project) -> None:
    bare_project.add_pipeline("asked", ["one"])
    done = bare_project.run("run", "asked")
    assert done.returncode == 1
    assert "ANTHROPIC_API_KEY" in done.stderr and "BATCH_ASSETS_EMULATOR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(bare_project.folder, "data").exists()


def test_the_reasons_match_the_counts_next_to_them(project: Project) -> None:
    """During an incomplete refresh the table is the old one, and counts and reasons are of the new answers."""
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two"])
    create = {"method": "POST", "path": BATCHES}
    project.emulator.faults([{"match": create, "action": {"error_mix": {"permission_error": 1.0}}}])
    assert "permission_error" in project.run("run", "asked").stdout
    project.emulator.reset_faults()
    project.emulator.faults([{"match": create, "action": {"error_mix": {"billing_error": 1.0}}}])
    held_back = project.run("run", "asked", "--refresh", "--limit", "1", "--yes")
    assert "the complete table stays until this one is complete" in held_back.stdout, held_back.stderr
    status = project.run("status", "asked").stdout
    assert "1 errored, 1 pending" in status and "wait in results_next, and the complete table stays" in status
    (line,) = [line for line in held_back.stdout.splitlines() if line.startswith("  errored")]
    assert line.split() == ["errored", "1", "billing_error"]


def test_a_run_shows_why_rows_failed_each_reason_once(project: Project) -> None:
    message = {"role": "user", "content": "{{ text }}"}
    params = {"model": "claude-hiaku-5-5", "max_tokens": 50, "messages": [message]}
    project.add_pipeline("asked", ["one", "", *map(str, range(8))], params=params)
    lines = project.run("run", "asked", "--limit", "4").stdout.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("  failed rows"))
    unknown, rejected = lines[at : at + 2]
    assert unknown.startswith("  failed rows   0: not_found_error: ") and "claude-hiaku-5-5" in unknown
    assert rejected.startswith(" " * 16 + "1: ")
    assert not any(line.startswith(("  answers", " " * 16)) for line in lines[at + 2 :])


def test_a_run_with_a_limit_shows_answers(project: Project) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    project.add_pipeline("asked", ["one", "two\n\u202e", *map(str, range(8))], output_schema=schema)
    lines = project.run("run", "asked", "--limit", "5").stdout.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("  answers"))
    moods = read_results(project, "asked")["mood"][:3]
    shown = [line.removeprefix("  answers").strip() for line in lines[at : at + 3]]
    assert shown == [f"{number}: {mood}" for number, mood in enumerate(moods)]
    whole = project.run("run", "asked").stdout
    assert "  answers" not in whole and "  failed rows" not in whole


def test_a_run_whose_answers_cannot_be_used_shows_them_with_the_reason(project: Project) -> None:
    assert project.emulator is not None
    project.emulator.faults(
        [{"match": {"method": "POST", "path": BATCHES}, "action": {"error_mix": {"malformed": 1.0}}}]
    )
    schema = {"type": "object", "properties": {"mood": {"type": "integer"}}, "required": ["mood"]}
    project.add_pipeline("asked", ["one", "two"], output_schema=schema | {"additionalProperties": False})
    lines = project.run("run", "asked", "--limit", "1").stdout.splitlines()
    assert "  unusable                   1  answers that cannot be used: their is_ok is false" in lines
    (row,) = read_results(project, "asked").query("result_type == 'succeeded'").to_dict("records")
    reason = f"{row['error_type']}: {row['error_message']}: {row['response_text']}"
    (shown,) = [line for line in lines if line.startswith("  unusable      0: ")]
    assert shown.removeprefix("  unusable      0: ")[:140] == " ".join(reason.split())[:140]
    assert not any(line.startswith("  answers") for line in lines)


def test_an_interrupted_run_can_be_continued(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two", "three"])
    project.emulator.settings(latency=3600)
    first = project.start("run", "asked", "--limit", "2")
    assert first.stdout is not None
    assert any("in_progress" in line for line in iter(first.stdout.readline, ""))
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "1 of its batches continues" in errors
    assert "batch-assets run asked\nIt also sends the 1 request beyond the limit." in errors
    assert "Traceback" not in errors

    status = project.run("status", "asked")
    assert "the API to end its batches" in status.stdout
    assert "2 requests, in_progress" in status.stdout

    project.emulator.end_batches()
    project.emulator.settings(latency=0.0)
    code, screen = project.run_in_terminal("run", "asked")
    assert code == 0, screen
    assert "2 in flight" in screen
    assert "\x1b[" in screen and "✓" in screen
    assert [batch["requests"] for batch in project.accepted()] == [2, 1]
    assert set(read_results(project, "asked").result_type) == {"succeeded"}


def test_a_run_that_a_budget_holds_ends_with_a_code_of_its_own(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"], budget={"max_usd": 0.00001, "per": "month"})
    held = project.run("run", "asked")
    assert held.returncode == 4, held.stderr
    assert "the budget of $0.00001 per month" in held.stdout
    assert project.accepted() == []
    status = project.run("status")
    assert "held" in status.stdout
    file = project.folder / "batch_assets" / "defs" / "asked" / "defs.yaml"
    file.write_text(file.read_text().replace("1e-05", "1"))
    raised = project.run("run", "asked")
    assert raised.returncode == 0, raised.stderr
    assert [batch["requests"] for batch in project.accepted()] == [2]
    status = project.run("status", env={"BATCH_ASSETS_BUDGET": "0.00001 per month"})
    assert "budget: 1" in status.stdout and " % of the root's budget of $0.00001 per month" in status.stdout


def test_a_run_asks_the_rows_live_when_its_deadline_passes(project: Project) -> None:
    """The batch would run for a day. The run waits for the deadline, makes the live calls, and is done."""
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two", "three"], deadline="0.02m", rescue="live")
    project.emulator.settings(latency=24 * 3600)
    done = project.run("run", "asked")
    assert (done.returncode, done.stderr) == (0, "")
    assert "batches: 3 live calls: 3 answered\n" in done.stdout
    assert "  rescued                    3  by live calls, for less than $0.0001" in done.stdout
    table = read_results(project, "asked")
    assert table.batch_id.str.startswith("live.").all()
    status = project.run("status", "asked").stdout
    assert "1 open" in status, "its batch goes on"
