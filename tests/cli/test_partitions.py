"""`batch-assets run --partition`: the key is checked before anything is read or sent."""

from __future__ import annotations

import pandas as pd

from .support import Project


def test_the_partition_must_be_one_of_the_pipelines(project: Project) -> None:
    project.add_pipeline("whole", ["one"])
    project.add_pipeline(
        "daily",
        ["one"],
        dataset={"path": "daily-{partition}.jsonl", "key": "id"},
        partitions={"daily": {"start": "2026-01-01", "end": "2026-01-04"}},
    )
    project.add_pipeline("by_text", ["de", "en", ""], partitions={"column": "text"}, max_failed=1)
    for command, problem in (
        (["whole", "--partition", "x"], "whole has no partitions: leave --partition out"),
        (["daily"], "daily has partitions: name one with --partition KEY. There are 2026-01-01 to 2026-01-03"),
        (["daily", "--partition", "2026-01-04"], "daily has no partition '2026-01-04'. There are 2026-01-01 to"),
    ):
        done = project.run("run", *command)
        assert (done.returncode, problem in done.stderr) == (1, True), done.stderr
    assert project.accepted() == []

    done = project.run("run", "by_text", "--partition", "de")
    assert done.returncode == 0, done.stderr
    assert "belong to no partition and are never sent: 1" in done.stdout + done.stderr
    table = pd.read_parquet(project.folder / "data" / "emulated" / "by_text" / "results")
    assert list(table["id"]) == [0]
