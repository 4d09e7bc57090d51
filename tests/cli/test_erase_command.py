"""`batch-assets erase`: says what it erased, what is left and until when, and where Dagster may show the row."""

from __future__ import annotations

from .support import Project


def test_an_erased_row_and_mistakes(project: Project) -> None:
    project.add_pipeline("asked", ["one", "a person's own words", "three"])
    assert project.run("run", "asked").returncode == 0
    done = project.run("erase", "asked", "--key", "1")
    assert (done.returncode, done.stderr) == (0, "")
    (batch,) = project.accepted()
    assert f"Deleted at the API: {batch['id']}." in done.stdout
    assert "Too short to be searched for in texts: 1." in done.stdout
    assert "Set DAGSTER_HOME" in done.stdout
    files = [path for path in (project.folder / "data").rglob("*") if path.is_file()]
    assert [path for path in files if b"own words" in path.read_bytes()] == []
    again = project.run("erase", "asked", "--key", "1")
    assert (again.returncode, again.stderr) == (0, "")
    assert "No submission of asked has a row '1'." in again.stdout
    unknown = project.run("erase", "another", "--key", "1")
    assert unknown.returncode == 1
    assert "nothing was submitted for a pipeline 'another'" in unknown.stderr
