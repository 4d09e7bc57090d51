"""After an upgrade, answered rows that would render differently are not sent again until the user accepts it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import AcceptRendering
from batch_assets.core.requests.rendering_change import RenderingChangedError

from ..support import World, params

# What the first version of the rendering made of META, by template.
META: dict[str, Any] = {"1": {"b": 1, "a": "<ü>"}, "2": {"c": None}, "3": {"b": 2.0, "items": 5}}
FIRST = {
    "= {{ meta }}": [
        "= {'b': 1, 'a': '<ü>', 'c': None, 'items': None}",
        "= {'b': None, 'a': None, 'c': None, 'items': None}",
        "= {'b': 2, 'a': None, 'c': None, 'items': 5}",
    ],
    "{{ meta | tojson }}": [
        '{"a": "\\u003c\\u00fc\\u003e", "b": 1, "c": null, "items": null}',
        '{"a": null, "b": null, "c": null, "items": null}',
        '{"a": null, "b": 2, "c": null, "items": 5}',
    ],
    "{{ meta.b }}-{{ meta['a'] }}-{{ meta.items() | length }}": ["1-<ü>-4", "--4", "2--4"],
    "{{ meta.b }}-{{ meta['a'] }}-{{ row['id'] }}": ["1-<ü>-1", "--2", "2--3"],
}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def old_root(world: World, prompts: list[str]) -> None:
    """Leave a root in which an earlier version asked these prompts: its manifest names no rendering."""
    pipeline = world.pipeline(dict(zip(META, prompts, strict=True)))
    report = world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("rendering") == 3
    path.write_text(json.dumps(manifest))
    write(world.folder / "rows.jsonl", [{"id": key, "meta": meta} for key, meta in META.items()])


def asking(world: World, content: str, **more: Any) -> Pipeline:
    return world.pipeline("rows.jsonl", params=params(content), **more)


@pytest.mark.parametrize(("content", "changed"), list(zip(FIRST, [3, 3, 3, 0], strict=True)))
def test_answered_rows_that_render_differently_are_counted_and_not_sent(
    world: World, content: str, changed: int
) -> None:
    old_root(world, FIRST[content])
    pipeline = asking(world, content)
    if not changed:
        report = world.build(pipeline)
        assert (report.reused, report.written) == (3, 0)
        return
    before = sorted(world.path("asked").rglob("*"))
    with pytest.raises(RenderingChangedError) as caught:
        world.build(pipeline)
    cost = world.table(pipeline)["cost_usd"].sum()
    text = str(caught.value)
    assert "asked/defs.yaml: 3 rows that are answered or in flight would render differently" in text
    amount = f"about ${cost:.4f}" if cost >= 0.0001 else "less than $0.0001"
    assert text.endswith(f"'1', '2', '3'. That would be 3 requests, {amount}. Nothing was sent")
    assert caught.value.remedy == AcceptRendering("asked")
    assert sorted(world.path("asked").rglob("*")) == before
    report = world.build(pipeline, accept_rendering=True)
    assert (report.reused, report.written) == (0, 3)
    world.submit(pipeline)
    world.finish(pipeline)
    assert world.build(asking(world, content)).written == 0  # the newest submission has the current rendering


# What the second version made of ROWS, by template, and how many of the rows print otherwise now.
ROWS: dict[str, Any] = {"1": None, "2": "x", "3": [None, "y"], "4": 2.0**53, "5": -0.0}
SECOND = {
    "= {{ v | upper }}": (["= NONE", "= X", "= [NONE, 'Y']", "= 9007199254740992.0", "= 0"], 2),
    "= {{ v }}": (["= ", "= x", "= [None, 'y']", "= 9007199254740992.0", "= 0"], 1),
    "= {{ v ~ '' }}{{ '%s' % 1 }}": (["= None1", "= x1", "= [None, 'y']1", "= 9007199254740992.01", "= 01"], 2),
    "= {{ [v] | tojson }}": (["= [null]", '= ["x"]', '= [[null, "y"]]', "= [9007199254740992.0]", "= [0]"], 1),
    "= {{ '%r' % v }}": (["= None", "= 'x'", "= [None, 'y']", "= 9007199254740992.0", "= 0"], 3),
    "= {{ v is none }} {{ id }}": (["= True 1", "= False 2", "= False 3", "= False 4", "= False 5"], 0),
}


@pytest.mark.parametrize(("content", "prompts", "changed"), [(key, *SECOND[key]) for key in SECOND])
def test_rows_that_the_second_version_printed_otherwise_are_counted(
    world: World, content: str, prompts: list[str], changed: int
) -> None:
    pipeline = world.pipeline(dict(zip(ROWS, prompts, strict=True)))
    report = world.build(pipeline)
    world.submit(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rendering": 2}))
    write(world.folder / "rows.jsonl", [{"id": key, "v": value} for key, value in ROWS.items()])
    pipeline = asking(world, content)
    if changed:
        with pytest.raises(RenderingChangedError, match=rf"{changed} rows? .*in flight would render differently"):
            world.build(pipeline)
    report = world.build(pipeline, accept_rendering=bool(changed))
    assert (report.in_flight, report.written) == (5 - changed, changed)


@pytest.mark.parametrize("rendering", [1, 2])
@pytest.mark.parametrize(
    ("cells", "late", "content", "then"),
    [
        (["1", "20"], "n/a", "= {{ v > 2 if v is number }}", ["= False", "= True"]),
        (["1.5", "2.5"], "2.50", "= {{ v * 2 if v is number }}", ["= 3.0", "= 5.0"]),
        (["2024-02-29", "1999-12-31"], "soon", "= {{ v.year }}", ["= 2024", "= 1999"]),
        (["True", "False"], "true", "{{ id }} {{ 'yes' if v else 'no' }}", ["a yes", "b no"]),
    ],
)
def test_rows_that_a_new_value_changes_with_the_upgrade_are_counted(
    world: World, cells: list[str], late: str, content: str, then: list[str], rendering: int
) -> None:
    """The earlier version recorded no kinds of columns."""
    pipeline = world.pipeline(dict(zip("ab", then, strict=True)))
    report = world.build(pipeline)
    world.submit(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    manifest = json.loads(path.read_text()) | {"rendering": rendering}
    manifest.pop("column_kinds", None)
    path.write_text(json.dumps(manifest))
    rows = [f"{key},{cell}\n" for key, cell in zip("ab", cells, strict=True)]
    (world.folder / "rows.csv").write_text("id,v\n" + "".join(rows) + f"c,{late}\n")
    pipeline = world.pipeline("rows.csv", params=params(content))
    before = sorted(world.path("asked").rglob("*"))
    problem = r"rows? .* in flight would render .* or because a few new values make text of a column \('v'; see"
    with pytest.raises(RenderingChangedError, match=problem):
        world.build(pipeline)
    assert sorted(world.path("asked").rglob("*")) == before
    (world.folder / "rows.csv").write_text("id,v\n" + "".join(rows))
    report = world.build(pipeline)
    assert (report.in_flight, report.written) == (2, 0)
    (world.folder / "rows.csv").write_text("id,v\n" + "".join(rows) + f"c,{late}\n")
    assert world.build(pipeline).in_flight >= 2  # from now on the kind is on record


def test_a_column_that_was_text_before_the_upgrade_changes_nothing(world: World) -> None:
    pipeline = world.pipeline({"a": "1 True", "b": "20 True", "c": "n/a True"})
    report = world.build(pipeline)
    world.submit(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    manifest = json.loads(path.read_text()) | {"rendering": 1}
    manifest.pop("column_kinds", None)
    path.write_text(json.dumps(manifest))
    (world.folder / "rows.csv").write_text("id,v\na,1\nb,20\nc,n/a\n")
    report = world.build(world.pipeline("rows.csv", params=params("{{ v }} {{ v is string }}")))
    assert (report.in_flight, report.written) == (3, 0)


def test_rows_that_are_new_or_asked_another_prompt_are_sent_without_a_word(world: World) -> None:
    old_root(world, FIRST["= {{ meta }}"])
    write(world.folder / "rows.jsonl", [{"id": key, "meta": [meta]} for key, meta in META.items()])
    assert world.build(asking(world, "= {{ meta }}")).written == 3
    assert world.build(asking(world, "Please: {{ meta }}")).written == 3


def test_only_the_rows_that_change_are_counted(world: World) -> None:
    prompts = FIRST["= {{ meta }}"]
    old_root(world, [prompts[0], "another", "prompt"])
    with pytest.raises(
        RenderingChangedError, match=r"1 row that is answered .* another way: '1'\. That would be 1 request, "
    ):
        world.build(asking(world, "= {{ meta }}"))


def test_rows_that_would_be_rejected_are_counted(world: World) -> None:
    """The first version saw null, and this one sees a key that is not there."""
    old_root(world, ["yes", "yes", "yes"])
    content = "{{ 'yes' if meta.c is none else meta.c.x }}"
    with pytest.raises(
        RenderingChangedError, match=r"2 rows .* '1', '3'\. .*no request, because the rows would be rejected"
    ):
        world.build(asking(world, content))


def test_requests_in_flight_count_as_well(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(dict(zip(META, FIRST["= {{ meta }}"], strict=True)))
    report = world.build(pipeline)
    world.submit(pipeline)
    path = world.submission_folder(pipeline, report) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["rendering"]
    path.write_text(json.dumps(manifest))
    write(world.folder / "rows.jsonl", [{"id": key, "meta": meta} for key, meta in META.items()])
    with pytest.raises(RenderingChangedError, match=r"3 rows .*3 requests, cost unknown"):
        world.build(asking(world, "= {{ meta }}"))


def test_a_limit_does_not_get_around_it_but_a_whole_refresh_does(world: World) -> None:
    old_root(world, FIRST["= {{ meta }}"])
    pipeline = asking(world, "= {{ meta }}")
    with pytest.raises(RenderingChangedError, match="3 rows"):
        world.build(pipeline, limit=1)
    with pytest.raises(RenderingChangedError, match="3 rows"):
        world.build(pipeline, limit=1, refresh=True)
    assert world.build(pipeline, refresh=True).written == 3
