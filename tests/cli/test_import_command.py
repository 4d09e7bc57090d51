"""`batch-assets import`: says what it matched and how, what it left out and why, and what it did not cost."""

from __future__ import annotations

import urllib.request

from .support import BATCHES, Project


def test_results_of_another_root_are_imported_once(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two", "three"])
    assert project.run("run", "asked").returncode == 0
    (batch,) = project.accepted()
    url = f"{project.emulator.url}{BATCHES}/{batch['id']}/results"
    request = urllib.request.Request(url, headers={"x-api-key": "any"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        (project.folder / "results.jsonl").write_bytes(response.read() + b'{"custom_id": "x"}\n')
    other = {"BATCH_ASSETS_ROOT": str(project.folder / "other")}
    done = project.run("import", "results.jsonl", "--pipeline", "asked", env=other)
    assert (done.returncode, done.stderr) == (0, "")
    assert "results.jsonl: 4 lines, compared with 3 rows." in done.stdout
    assert "imported by the digest in its custom_id: 3" in done.stdout
    assert 'not a result line with a custom_id of the API: 1 ({"custom_id": "x"})' in done.stdout
    assert "paid elsewhere: the table's cost includes that" in done.stdout
    assert project.run("run", "asked", env=other).returncode == 0
    assert project.accepted() == [batch], "everything was answered"
    again = project.run("import", "results.jsonl", "--pipeline", "asked", env=other)
    assert (again.returncode, "the request has an answer already: 3" in again.stdout) == (0, True)
    wrong = project.run("import", "no.jsonl", "--pipeline", "asked", env=other)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "no.jsonl: there is no such file, and it is no id of a batch" in wrong.stderr
    folder = project.run("import", "data", "--pipeline", "asked", env=other)
    assert (folder.returncode, "data is a folder: name one of its files" in folder.stderr) == (1, True)
