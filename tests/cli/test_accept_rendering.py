"""`batch-assets run` after an upgrade that prints values in another way."""

from __future__ import annotations

import json

from .support import Project

OLD = '{"a": 1, "b": null}'  # what the first version of the rendering printed for {"a": 1}
ROWS = [{"id": 0, "meta": {"a": 1}}, {"id": 1, "meta": {"b": 2}}]


def test_answered_rows_are_sent_again_only_with_the_option(project: Project) -> None:
    project.add_pipeline("asked", [OLD])
    assert project.run("run", "asked").returncode == 0
    (path,) = (project.folder / "data").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["rendering"]
    path.write_text(json.dumps(manifest))
    (project.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    definition = project.folder / "batch_assets" / "defs" / "asked" / "defs.yaml"
    definition.write_text(definition.read_text().replace("{{ text }}", "{{ meta | tojson }}"))

    stopped = project.run("run", "asked")
    assert (stopped.returncode, len(project.accepted())) == (1, 1)
    assert "1 row that is answered or in flight would render differently" in " ".join(stopped.stderr.split())
    assert "That would be 1 request, less than $0.0001. Nothing was sent" in " ".join(stopped.stderr.split())
    assert "To accept it: batch-assets run asked --accept-rendering" in stopped.stderr

    assert project.run("run", "asked", "--accept-rendering").returncode == 0
    assert [batch["requests"] for batch in project.accepted()] == [1, 2]
    assert project.run("run", "asked").returncode == 0
    assert len(project.accepted()) == 2
