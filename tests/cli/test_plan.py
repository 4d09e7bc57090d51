"""`batch-assets plan`: what a run would send and cost, with and without a key; and the same in the run itself."""

from __future__ import annotations

from .support import Project


def test_a_plan_needs_no_key_and_sends_nothing(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two", "two", ""])
    url = project.env.pop("BATCH_ASSETS_EMULATOR")
    planned = project.run("plan", "asked")
    assert planned.returncode == 0, planned.stderr
    lines = [line.split() for line in planned.stdout.splitlines()]
    assert [line[:2] for line in lines[1:5]] == [
        ["rejected", "1"],
        ["requests", "2"],
        ["reused", "0"],
        ["in", "flight"],
    ]
    assert "to send                    2  in 1 batch, " in planned.stdout
    assert "prompts by their characters" in planned.stdout
    project.env["BATCH_ASSETS_EMULATOR"] = url
    assert project.accepted() == []
    assert "prompts as the API counts their tokens" in project.run("plan", "asked").stdout


def test_what_may_cost_more_than_confirm_above_needs_consent(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"], confirm_above=0)
    assert "warning: a run would hold the requests" in project.run("plan", "asked").stdout
    held = project.run("run", "asked")
    assert held.returncode == 4, held.stderr
    assert "batch-assets approve asked" in held.stdout
    assert project.accepted() == []
    approved = project.run("run", "asked", "--yes")
    assert approved.returncode == 0, approved.stderr
    assert [batch["requests"] for batch in project.accepted()] == [2]


def test_an_approved_run_is_sent_by_the_next_one(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"], confirm_above=0)
    assert project.run("run", "asked").returncode == 4
    unknown = project.run("approve", "askd")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "(did you mean 'asked'?); pipelines there: asked; add --resource KEY" in unknown.stderr
    lines = project.run("approve", "asked").stdout.splitlines()
    assert lines[0] == "1 request file with 2 requests approved"
    assert lines[1].startswith("why they were held: it may cost $") and "confirm_above is $0" in lines[1]
    assert project.run("run", "asked").returncode == 0
    assert [batch["requests"] for batch in project.accepted()] == [2]


def test_a_run_says_what_it_costs_and_what_the_rest_would(project: Project) -> None:
    project.add_pipeline("asked", [f"text {number}" for number in range(8)])
    first = project.run("run", "asked", "--limit", "3")
    assert "estimated cost: 3 requests, " in first.stdout
    assert "estimated cost of the rest: 5 requests, " in first.stdout
    planned = project.run("plan", "asked", "--limit", "2")
    assert "to send                    2  in 1 batch, " in planned.stdout
    assert "left out                   3  by the limit" in planned.stdout
    assert planned.stdout.count("from 3 answers to this prompt") == 2
    assert "nothing would be sent" not in planned.stdout
