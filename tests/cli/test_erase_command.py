"""`batch-assets erase`: says what it erased, what it could not search for, and where Dagster may show the row."""

from __future__ import annotations

from .support import Project


def test_an_erased_row(project: Project) -> None:
    project.add_pipeline("asked", ["one", "a person's own words", "three"])
    assert project.run("run", "asked").returncode == 0
    done = project.run("erase", "asked", "--key", "1", "--key", "7")
    assert (done.returncode, done.stderr) == (0, "")
    (batch,) = project.accepted()
    assert f"Deleted at the API: {batch['id']}." in done.stdout
    assert "No submission of asked has a row '7'." in done.stdout
    assert "Too short to be searched for in texts: 1, 7." in done.stdout
    assert "Set DAGSTER_HOME" in done.stdout
    files = [path for path in (project.folder / "data").rglob("*") if path.is_file()]
    assert [path for path in files if b"own words" in path.read_bytes()] == []
    wrong = project.run("erase", "asked", "--key", "R-2", "--key", "")
    assert wrong.returncode == 1
    assert "Too short to be searched for in texts: R-2, ''." in wrong.stdout
    assert "left: 'R-2' is no row key of asked, whose keys have the type int64" in wrong.stderr
