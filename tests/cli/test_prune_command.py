"""`batch-assets prune`: says what it would remove and what asking again costs, and removes it with --yes."""

from __future__ import annotations

from .support import Project


def test_what_it_would_prune_what_it_has_pruned_and_what_it_cannot(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two", "three"])
    project.emulator.clock(advance=-3 * 86400)
    assert project.run("run", "asked").returncode == 0
    project.emulator.clock(reset=True)
    (folder,) = (project.folder / "data").rglob("responses")
    (file,) = folder.iterdir()
    stored = file.read_bytes()
    done = project.run("prune", "asked", "--older-than", "1d")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "There is nothing to prune.",
        "3 old answers stay: a current table has them. --in-force prunes them too.",
    ]
    done = project.run("prune", "asked", "--older-than", "1d", "--in-force")
    assert done.stdout.startswith("Would prune 3 answers in 1 response file: about ")
    assert "3 of them are in a current table: the next run asks for them again." in done.stdout
    assert "3 of them are the only answer to a request. To ask for all of these again would cost " in done.stdout
    assert done.stdout.endswith("Nothing was changed. Repeat the command with --yes to prune them.\n")
    assert file.read_bytes() == stored
    done = project.run("prune", "asked", "--older-than", "1d", "--in-force", "--yes")
    assert done.stdout.startswith("Pruned 3 answers in 1 response file: about ")
    assert file.read_bytes() != stored
    wrong = project.run("prune", "asked", "--older-than", "90")
    assert (wrong.returncode, "such as 90d or 12w" in wrong.stderr) == (2, True)
    unknown = project.run("prune", "other", "--older-than", "1w")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "nothing was submitted for a pipeline 'other'" in unknown.stderr
