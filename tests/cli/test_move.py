"""`batch-assets move`, and the errors of the command line for a root and a ledger that are not a pair."""

from __future__ import annotations

from .support import Project


def test_a_ledger_that_is_not_the_roots_is_refused_until_the_user_pairs_them(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"])
    assert project.run("run", "asked").returncode == 0
    other = {"BATCH_ASSETS_LEDGER": f"sqlite:///{project.folder}/other.db"}
    for command in (("status",), ("run", "asked"), ("cancel", "asked"), ("list",)):
        refused = project.run(*command, env=other)
        assert refused.returncode == 1, command
        assert "Traceback" not in refused.stderr
        for text in ("data/emulated/ledger.db", "other.db", "batch-assets move"):
            assert text in refused.stderr, command
    assert not (project.folder / "other.db").exists()
    unconfirmed = project.run("move", env=other)
    assert (unconfirmed.returncode, "pass --yes" in unconfirmed.stderr.lower()) == (1, True)
    assert "The root belonged to the ledger" in unconfirmed.stdout
    assert project.run("move", "--yes", env=other).returncode == 0
    assert "nothing was changed" in project.run("move", env=other).stdout
    assert project.run("run", "asked", env=other).returncode == 0
    assert len(project.accepted()) == 1
    assert "other.db" in project.run("status").stderr


def test_a_relative_root_is_that_of_the_project(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    env = {"BATCH_ASSETS_ROOT": "kept"}
    assert project.run("run", "asked", env=env).returncode == 0
    assert (project.folder / "kept" / "root.json").is_file()
