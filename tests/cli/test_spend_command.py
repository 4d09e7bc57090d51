"""`batch-assets spend --csv`: the columns that a table of a spreadsheet needs, labels of the project included."""

from __future__ import annotations

import csv
import io

from batch_assets.core.spend.spend_table import SPEND_SCHEMA

from .support import Project


def test_csv_has_all_columns_with_the_labels_as_they_are_now(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"], cost_center="4711")
    assert project.run("run", "asked").returncode == 0
    printed = project.run("spend", "--csv")
    assert (printed.returncode, printed.stderr) == (0, "")
    (line,) = csv.DictReader(io.StringIO(printed.stdout))
    assert list(line) == SPEND_SCHEMA.names
    assert (line["cost_center"], line["requests"], line["fees_usd"]) == ("4711", "2", "0.000000000000")
    grouped = project.run("spend", "--by", "model", "--csv")
    (group,) = csv.DictReader(io.StringIO(grouped.stdout))
    texts = {"day", "pipeline", "partition", "service_tier", "workspace", "cost_center", "tags", "kind"}
    assert set(group) == set(SPEND_SCHEMA.names) - texts, "all columns that can be added up"
    assert all(group[name] == line[name] for name in group)
    (project.folder / "batch_assets" / "defs" / "broken.py").write_text("raise RuntimeError('not today')\n")
    beside = project.run("spend", "--csv")
    assert (beside.returncode, beside.stdout) == (0, printed.stdout)
    assert "broken has the cost_center and tags of the last table, because its file is broken: " in beside.stderr
    settings = project.folder / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"batch_assets"', '"nowhere"'))
    without = project.run("spend", "--csv")
    assert (without.returncode, without.stdout) == (0, printed.stdout), "the labels stay"
    assert without.stderr.startswith("cost_center and tags are those of the last table: ")
    assert "there is no module nowhere" in without.stderr
