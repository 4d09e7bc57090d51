"""`batch-assets rename`: answers go on under the new name, and mistakes are sentences."""

from __future__ import annotations

from .support import Project


def test_a_renamed_pipeline_keeps_its_answers(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"])
    assert project.run("run", "asked").returncode == 0
    project.add_pipeline("renamed", ["one", "two"])
    renamed = project.run("rename", "asked", "renamed")
    assert (renamed.returncode, renamed.stderr) == (0, "")
    assert "1 submission of asked and all files are now those of renamed." in renamed.stdout
    assert project.run("run", "renamed").returncode == 0
    assert len(project.accepted()) == 1
    again = project.run("rename", "asked", "renamed")
    assert again.returncode == 1
    assert "nothing was submitted for a pipeline 'asked'" in again.stderr
    assert "pipelines there: renamed" in again.stderr
