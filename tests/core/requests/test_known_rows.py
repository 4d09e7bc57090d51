"""A build takes the requests of rows that are as they were from the last one: it makes what a full build makes."""

from __future__ import annotations

import datetime as dt
import json
import random
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.dataset.dataset import Dataset
from batch_assets.core.dataset.rows import Rows
from batch_assets.core.erase.run import erase
from batch_assets.core.io import parted_records
from batch_assets.core.io.storage import Storage
from batch_assets.core.pipeline.hooks import Params, Row
from batch_assets.core.pipeline.pipeline import Hooks, Pipeline
from batch_assets.core.requests.exact_json import exact_json
from batch_assets.core.requests.garbage import remove_garbage
from batch_assets.core.requests.registration import Registrar
from batch_assets.core.requests.report import RequestsReport
from batch_assets.core.requests.row_hasher import RowHasher
from batch_assets.core.requests.row_renderer import row_templates
from batch_assets.core.store import parts, row_hashes
from batch_assets.core.store.digests import pack
from batch_assets.core.store.row_hashes import CONTEXT_BYTES, ROW_HASHES, RowHashesWriter, read_row_hashes

from ..support import CREATE, World, calling, params, texts, write_rows

_SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "additionalProperties": False}
_TEMPLATES = ["{{ text }}: {{ value }}", "{{ row }}", "{{ value }}: {{ text }}"]
_NOT_COMPARED = {"submission", "created_at", "fingerprint", "waits"}


def built(world: World, pipeline: Pipeline, report: RequestsReport) -> dict[str, Any]:
    """What a build has written, without what tells one submission from another."""
    folder = world.submission_folder(pipeline, report)
    manifest = pd.read_json(folder / "manifest.json", typ="series").to_dict()
    return {
        "index": pq.read_table(folder / "index.parquet").to_pylist(),
        "rejected": pq.read_table(folder / "rejected.parquet").to_pylist(),
        "files": {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.jsonl"))},
        "digests": {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.digests"))},
        "manifest": {name: value for name, value in manifest.items() if name not in _NOT_COMPARED},
    }


def hashes_of(world: World, pipeline: Pipeline, report: RequestsReport) -> Path:
    return world.submission_folder(pipeline, report) / ROW_HASHES


class History:
    """A pipeline whose dataset and template change at random."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.rows = [self._row(number) for number in range(30)]
        self.attributes: dict[str, Any] = {"params": params(_TEMPLATES[0])}
        self.next = 30
        self.is_parquet = seed % 2 == 0
        self.erased: set[str] = set()

    def _row(self, number: int) -> dict[str, Any]:
        text = self.random.choice([f"text {number}", "the same text", f"text {number % 7}", "", None])
        return {"id": f"row-{number}", "text": text, "value": self.random.choice([None, number, 3])}

    def edit(self) -> None:
        """Change the dataset or the pipeline."""
        edits = self.random.choices(
            [self._insert, self._delete, self._shuffle, self._cells, self._kind, self._template, self._headers],
            weights=[4, 3, 2, 5, 1, 1, 1],
            k=2,
        )
        for edit in edits:
            edit()

    def _insert(self) -> None:
        for _ in range(3):
            self.rows.insert(self.random.randrange(len(self.rows)), self._row(self.next))
            self.next += 1

    def _delete(self) -> None:
        del self.rows[self.random.randrange(len(self.rows))]

    def _shuffle(self) -> None:
        self.random.shuffle(self.rows)

    def _cells(self) -> None:
        for row in self.random.sample(self.rows, 4):
            row[self.random.choice(["text", "value"])] = self.random.choice([None, 7, 8])
            row["text"] = None if row["text"] is None else str(row["text"])

    def _kind(self) -> None:
        """The numbers become numbers of another kind."""
        kind = self.random.choice([float, int])
        for row in self.rows:
            row["value"] = None if row["value"] is None else kind(row["value"])

    def _template(self) -> None:
        self.attributes["params"] = params(self.random.choice(_TEMPLATES))

    def _headers(self) -> None:
        self.attributes["anthropic_version"] = self.random.choice(["2023-06-01", "2023-01-01"])

    def pipeline(self) -> Pipeline:
        """Write the dataset, and return the pipeline as it is now."""
        table = pa.Table.from_pylist(self.rows)
        if self.is_parquet:
            pq.write_table(table, self.world.folder / "rows.parquet")
        else:
            table.to_pandas().to_json(self.world.folder / "rows.jsonl", orient="records", lines=True)
        name = "rows.parquet" if self.is_parquet else "rows.jsonl"
        return self.world.pipeline(dataset={"path": name, "key": "id"}, **self.attributes)

    def go_on(self, pipeline: Pipeline) -> None:
        """Send what is to be sent, or not; some of it fails; some rows are erased."""
        world, step = self.world, self.random.random()
        if step < 0.15:
            return
        world.emulator.reset_faults()
        if step < 0.5:
            world.emulator.faults(
                [{"match": CREATE, "action": {"error_mix": {"permission_error": 0.2, "expired": 0.2}}}]
            )
        world.submit(pipeline)
        if step < 0.9:
            world.emulator.end_batches()
            world.collect(pipeline)
        if step > 0.75 and not self.erased:
            self.erased = {row["id"] for row in self.random.sample(self.rows, 2)}
            erase(world.root, pipeline.name, sorted(self.erased), pipeline)


@pytest.mark.parametrize("seed", [1, 2])  # these have all edits, failures and an erased row
def test_builds_are_those_of_a_full_way_after_any_edits(world: World, seed: int) -> None:
    history = History(world, seed)
    known = 0
    for _ in range(4):
        options = {"limit": 5} if history.random.random() < 0.2 else {}
        options |= {"retry_failed": True} if history.random.random() < 0.3 else {}
        pipeline = history.pipeline()
        report = world.build(pipeline, **options)
        if report.is_unchanged:
            continue
        known += report.rows - report.rendered
        content = built(world, pipeline, report)
        hashes_of(world, pipeline, report).unlink()

        full = world.build(pipeline, **options)

        assert full.rendered == full.rows
        assert built(world, pipeline, full) == content
        for name in ("rows", "rejected", "requests", "written", "reused", "in_flight", "left_out", "bytes"):
            assert getattr(full, name) == getattr(report, name), name
        history.go_on(pipeline)
        history.edit()
    assert known


def again(world: World, pipeline: Pipeline) -> RequestsReport:
    """Answer everything, add a row, and build again."""
    world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    write_rows(world.folder / "rows.jsonl", texts(5))
    return world.build(pipeline)


def test_only_the_new_row_is_rendered(world: World) -> None:
    report = again(world, world.pipeline(texts(4)))

    assert (report.rows, report.rendered, report.written, report.reused) == (5, 1, 1, 4)


def test_the_hashes_of_the_last_submission_only_are_kept(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    report = again(world, pipeline)

    assert list(world.path(pipeline.name).rglob(ROW_HASHES)) == [hashes_of(world, pipeline, report)]


def test_a_build_removes_the_hashes_before_its_own_with_one_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = world.pipeline(texts(4))
    old = world.build(pipeline)
    removed: list[tuple[str, ...]] = []
    remove = Storage.remove

    def noting(storage: Storage, *parts: str) -> None:
        removed.append(parts)
        remove(storage, *parts)

    monkeypatch.setattr(Storage, "remove", noting)
    for number in (5, 6):
        removed.clear()
        write_rows(world.folder / "rows.jsonl", texts(number))
        new = world.build(pipeline)
        assert [parts[-2:] for parts in removed if parts[-1] == ROW_HASHES] == [(old.submission_id, ROW_HASHES)]
        old = new


def test_the_build_after_one_that_was_killed_has_the_hashes_of_the_last_submission(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = world.pipeline(texts(4))

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        world.build(pipeline)
        world.submit(pipeline)
        world.finish(pipeline)
        write_rows(world.folder / "rows.jsonl", texts(5))
        patched.setattr(Registrar, "_try_register", killed)
        with pytest.raises(KeyboardInterrupt):
            world.build(pipeline)
    newest = world.build(pipeline)
    assert (newest.rows, newest.rendered) == (5, 1)
    assert list(world.path(pipeline.name).rglob(ROW_HASHES)) == [hashes_of(world, pipeline, newest)]


def test_unfinished_hashes_that_a_killed_build_left_are_removed(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    old, newest = world.build(pipeline), again(world, pipeline)
    for report in (old, newest):
        (world.submission_folder(pipeline, report) / f".{ROW_HASHES}.0123456789ab.tmp").write_bytes(b"left")

    remove_garbage(world.root, pipeline.name, "")

    assert list(world.path(pipeline.name).rglob(f"*{ROW_HASHES}*")) == [hashes_of(world, pipeline, newest)]


def _upper(params: Params, row: Row) -> Params:
    return params


@pytest.mark.parametrize(
    "more",
    [
        {"hooks": Hooks(render_request=_upper)},
        {"betas": ["{{ 'context-1m-2025-08-07' if text else none }}"]},
        {"params": params([{"type": "text", "text": "{{ (id ~ '.txt') | file_base64 }}{{ text }}"}])},
        {"params": params("{% if not text %}{{ text.tz_convert('Europe/Paris') }}{% endif %}{{ text }}")},
        {"params": params("{% if not text %}{{ text | attr('astimezone') }}{% endif %}{{ text }}")},
    ],
    ids=["hook", "betas", "files", "zones", "zones of a filter"],
)
def test_rows_without_a_certain_hash_are_rendered_each_time(world: World, more: dict[str, Any]) -> None:
    for number in range(5):
        (world.folder / f"row-{number}.txt").write_text(f"content {number}")
    pipeline = world.pipeline(texts(4), **more)
    report = again(world, pipeline)

    assert report.rendered == report.rows == 5
    assert not list(world.path(pipeline.name).rglob(ROW_HASHES))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")])
def test_without_readable_hashes_all_rows_are_rendered(world: World, damage: Callable[[Path], Any]) -> None:
    pipeline = world.pipeline(texts(4))
    report = world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    damage(hashes_of(world, pipeline, report))
    write_rows(world.folder / "rows.jsonl", texts(5))

    assert world.build(pipeline).rendered == 5


def test_rows_whose_requests_have_to_be_sent_are_rendered(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    world.build(pipeline)
    write_rows(world.folder / "rows.jsonl", texts(5))

    report = world.build(pipeline)

    assert (report.rendered, report.written) == (5, 5)


def test_an_erased_row_leaves_no_hash(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    report = world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)

    hashes = hashes_of(world, pipeline, report)
    left = hashes.with_name(f".{ROW_HASHES}.0123456789ab.tmp")  # by a killed build
    left.write_bytes(b"left")

    erase(world.root, pipeline.name, ["row-1"], pipeline)

    assert not hashes.exists()
    assert not left.exists()


def test_another_pipeline_renders_all_rows(world: World) -> None:
    pipeline = world.pipeline(texts(4))
    again(world, pipeline)
    changes: list[dict[str, Any]] = [
        {"params": params("{{ text }}!")},
        {"batching": {"max_mb": 1}},
        {"anthropic_version": "2023-06-01"},
        {"betas": ["context-1m-2025-08-07"]},
        {"output_schema": _SCHEMA},
    ]
    for change in changes:
        assert world.build(world.pipeline(**change)).rendered == 5, change
        world.build(pipeline)  # whose answers would count if the change went unnoticed


def test_another_budget_renders_no_row_again(world: World) -> None:
    """A cap is raised while files are held, and there may be many rows."""
    again(world, world.pipeline(texts(4)))
    money = {"budget": {"max_usd": 5, "per": "day"}, "confirm_above": 1}
    assert world.build(world.pipeline(texts(6), **money)).rendered == 2


def test_a_key_of_another_kind_renders_all_rows(world: World) -> None:
    again(world, world.pipeline(texts(4), params=calling({True: 1})))

    report = world.build(world.pipeline(params=calling({"true": 1})))

    assert (report.rendered, report.written) == (5, 5)


def test_json_for_digests_tells_keys_apart() -> None:
    objects = [{key: 1} for key in (True, "true", "True", None, "null", "None", 1, "1", 1.0)]

    assert len({exact_json([entry]) for entry in [*objects, [["str", "1", 1]], {"1": 1, "2": 1}]}) == 11


def test_another_prompt_file_renders_all_rows(world: World) -> None:
    (world.folder / "prompt.txt").write_text("Sum up. ")
    template = params("{% include 'prompt.txt' %}{{ text }}")
    assert again(world, world.pipeline(texts(4), params=template)).rendered == 1

    (world.folder / "prompt.txt").write_text("Translate. ")

    assert world.build(world.pipeline(texts(5), params=template)).rendered == 5


def test_a_column_or_key_that_no_template_reads_renders_no_row_again(world: World) -> None:
    rows = [{"id": f"r{number}", "text": f"text {number}", "meta": {"a": number}} for number in range(4)]
    key, column = {"text": "new", "meta": {"a": 7, "b": 8}}, {"text": "new", "more": 1}
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("{{ text }}", key, False),
        ("{{ text }}", column, False),
        ("{% if meta %}{{ text | upper }}{% endif %}{{ meta | tojson }}", key, False),
        ("{{ row['text'] }}{{ row.meta }}", column, False),
        ("{{ meta.a }}{{ text }}", column, False),
        ("{{ meta.a }}{{ text }}", key, True),
        ("{{ text }}{% for key in meta %}{{ meta[key] }}{% endfor %}", key, True),
        ("{{ text }}{{ '{0[a]}'.format(meta) }}", key, True),
        ("{{ text }}{{ [meta] | map(attribute='a') | join }}", key, True),
        ("{{ row }}", column, True),
        ("{{ text }}{{ row.keys() | join }}", column, True),
    ]
    for number, (template, change, is_read) in enumerate(cases):
        dataset = {"path": f"{number}.jsonl", "key": "id"}
        pipeline = world.pipeline(name=f"p{number}", dataset=dataset, params=params(template))
        path = world.folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        world.build(pipeline)
        world.submit(pipeline)
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"id": "new"} | change]))
        assert world.build(pipeline).rendered == (5 if is_read else 1), (template, change)


@pytest.mark.parametrize("others", ["meta", "another"])
def test_a_row_is_rejected_once_no_object_has_the_key_that_it_lacks(world: World, others: str) -> None:
    """A column that no template reads counts as well: its object shows that the key is no mistake."""
    rows: list[dict[str, Any]] = [{"id": "1", "meta": {"a": 1}}, {"id": "2", "meta": {"a": 1}}]
    rows[1][others] = {"a": 2, "b": 3}
    path = world.folder / "rows.jsonl"
    pipeline = world.pipeline(dataset={"path": "rows.jsonl", "key": "id"}, params=params("{{ id }}{{ meta.b }}"))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert world.build(pipeline).rejected == 0
    world.submit(pipeline)
    rows[1] |= {others: {"a": 2}}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert world.build(pipeline).rejected == 2


@pytest.mark.parametrize(
    "template",
    [
        "{% include id ~ '.txt' ignore missing %}{{ text }}",
        "{% include [id ~ '.txt', 'default.txt'] %}{{ text }}",
    ],
)
def test_a_prompt_file_that_did_not_exist_before_is_noticed(world: World, template: str) -> None:
    (world.folder / "default.txt").write_text("default ")
    again(world, world.pipeline(texts(4), params=params(template)))
    (world.folder / "row-1.txt").write_text("a new file ")

    report = world.build(world.pipeline(params=params(template)))

    assert (report.rendered, report.written) == (5, 2)  # the row with the file, and the one of the build before


_MOMENT = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
_MOMENTS = [
    *(pd.Timestamp(2026, 1, 2, tz=zone) for zone in (None, dt.UTC, ZoneInfo("UTC"), ZoneInfo("Etc/UTC"))),
    *(_MOMENT.replace(tzinfo=ZoneInfo("UTC")), _MOMENT.replace(tzinfo=ZoneInfo("Etc/UTC"))),
    *(pd.Timestamp(2026, 1, 2).as_unit("ns"), pd.Timestamp(2026, 1, 2).as_unit("ns") + pd.Timedelta(1, "ns")),
    *(pd.Timedelta(1, "ns"), pd.Timedelta(1, "s").as_unit("s"), pd.Timedelta(1, "s").as_unit("ns")),
]
_VALUES: list[Any] = [
    *("1", 1, 1.0, True, None, "", "None", b"1", Decimal("1"), Decimal("1.0"), -0.0, 0.0, "0"),
    *(dt.date(2026, 1, 2), dt.datetime(2026, 1, 2), _MOMENT, *_MOMENTS, dt.time(1), dt.timedelta(1), "2026-01-02"),
    *([], {}, [1], ["1"], [1.0], [True], [None], {"a": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
]


def hashed(world: World, values: dict[str, list[Any]]) -> tuple[list[bytes], list[bool]]:
    """The hashes of rows with these columns, as Python values."""
    pipeline = make_texts_pipeline(world, list(values))
    with Dataset(pipeline) as dataset:
        hasher = RowHasher(b"context", row_templates(pipeline, dataset))
    count = len(next(iter(values.values())))
    table = pa.RecordBatch.from_pydict({name: pa.nulls(count, pa.string()) for name in values})
    hashes, has_hash = hasher.hashes(Rows(table, own=dict(values)))
    return hashes.tolist(), has_hash.tolist()


def make_texts_pipeline(world: World, names: list[str]) -> Pipeline:
    write_rows(world.folder / "rows.jsonl", texts(1))
    pq.write_table(pa.table({name: ["x"] for name in names}), world.folder / "columns.parquet")
    template = params("".join(f"{{{{ {name} }}}}" for name in names))
    return world.pipeline(dataset={"path": "columns.parquet"}, params=template)


def test_values_of_different_kinds_have_different_hashes(world: World) -> None:
    hashes, has_hash = hashed(world, {"text": _VALUES})

    assert all(has_hash)
    assert len(set(hashes)) == len(_VALUES)


def test_a_hash_tells_columns_apart(world: World) -> None:
    hashes, _ = hashed(world, {"a": ["12", "1", "", None], "b": ["3", "23", "123", "123"]})

    assert len(set(hashes)) == 4


def test_a_hash_tells_values_from_the_columns_that_a_row_has(world: World) -> None:
    """A value may hold whatever would precede it in the hash of another row."""
    make_texts_pipeline(world, ["text"])
    template = params("{{ row.items() | list | string }}")
    pipeline = world.pipeline(dataset={"path": "columns.parquet"}, params=template)
    with Dataset(pipeline) as dataset:
        hasher = RowHasher(b"context", row_templates(pipeline, dataset))
    names = ascii(["text"])
    text = "B" * 114
    longer = f"{chr(0) * 7}{chr(len(names))}{chr(0) * 7}s{text}{names}"

    whole, _ = hasher.hashes(Rows(pa.RecordBatch.from_pydict({"text": [longer, text]})))
    part, _ = hasher.hashes(Rows(pa.RecordBatch.from_pydict({"text": [text]}), present=[("text",)]))

    assert len({*whole.tolist(), *part.tolist()}) == 3


def test_values_that_a_hash_cannot_tell_have_none(world: World) -> None:
    zoned = _MOMENT.astimezone(dt.timezone(dt.timedelta(hours=1)))
    berlin = _MOMENT.astimezone(ZoneInfo("Europe/Berlin"))
    values = ["known", object(), [object()], zoned, pd.Timestamp(zoned), berlin, np.float32(1), {1: 2}]

    _, has_hash = hashed(world, {"text": values})

    assert has_hash == [True, *[False] * 7]


@pytest.mark.parametrize(
    "type_",
    [
        *(pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC", "Etc/UTC", "+00:00")),
        pa.duration("ns"),
    ],
    ids=str,
)
def test_moments_in_parquet_have_a_hash(world: World, type_: pa.DataType) -> None:
    table = pa.table({"id": ["a", "b", "c"], "at": pa.array([1, 2, 1], type_)})
    pq.write_table(table, world.folder / "rows.parquet")
    pipeline = world.pipeline(dataset={"path": "rows.parquet", "key": "id"}, params=params("{{ at }}"))

    with Dataset(pipeline) as dataset:
        hasher = RowHasher(b"context", row_templates(pipeline, dataset))
        [(hashes, has_hash)] = [hasher.hashes(rows) for rows in dataset.rows(["at"])]

    assert has_hash.all()
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.int8(), pa.uint64(), pa.float64(), pa.bool_()]
)
def test_columns_of_arrow_have_the_hashes_of_their_values(world: World, type_: pa.DataType) -> None:
    values = ["a", "ä", "", None] if "string" in str(type_) else [1, 0, None, 1]
    pipeline = make_texts_pipeline(world, ["text"])
    with Dataset(pipeline) as dataset:
        hasher = RowHasher(b"context", row_templates(pipeline, dataset))
    column = pa.array(values).cast(type_)
    table = pa.RecordBatch.from_pydict({"text": column})

    from_arrow, _ = hasher.hashes(Rows(table))

    assert from_arrow.tolist() == hashed(world, {"text": table.column(0).to_pylist()})[0]


def written_hashes(world: World, hashes: list[bytes], digests: list[bytes]) -> Path:
    with world.root.storage.write("folder", ROW_HASHES) as path, path.open("wb") as file:
        writer = RowHashesWriter(file, b"c" * CONTEXT_BYTES)
        writer.write(pack(hashes), pack(digests))
        writer.finish()
    return world.path("folder", ROW_HASHES)


@pytest.mark.parametrize("in_memory", [0, 100])
def test_equal_first_halves_of_hashes_find_no_wrong_digest(
    world: World, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(row_hashes, "_IN_MEMORY", in_memory)
    hashes = [b"12345678abcdefgh", b"12345678abcdefgi", b"0" * 16]
    written_hashes(world, hashes, [b"a" * 16, b"b" * 16, b"c" * 15 + b"\0"])
    known = read_row_hashes(world.root.storage, ("folder",), b"c" * CONTEXT_BYTES)
    assert known is not None

    digests, is_known = known.digests_of(pack([*reversed(hashes), b"12345678zzzzzzzz"]))

    assert is_known.tolist() == [True, not in_memory, True, False]
    assert digests[[0, 2]].tobytes() == b"c" * 15 + b"\0" + b"a" * 16


@pytest.mark.parametrize("in_memory", [0, 100])
@pytest.mark.parametrize("at_once", [1, 3, 4, 100])
def test_hashes_are_read_in_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch, at_once: int, in_memory: int
) -> None:
    monkeypatch.setattr(row_hashes, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(row_hashes, "_ROWS_AT_ONCE", at_once)
    hashes, digests = ([random.Random(seed).randbytes(16) for seed in range(start, 50, 2)] for start in (0, 1))
    path = written_hashes(world, hashes, digests)

    known = read_row_hashes(world.root.storage, ("folder",), b"c" * CONTEXT_BYTES)

    assert known is not None
    found, is_known = known.digests_of(pack(hashes))
    assert is_known.all()
    assert found.tobytes() == b"".join(digests)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40], content[:10], content[:-33] + content[-1:], content + b"?"):
        path.write_bytes(damaged)
        assert read_row_hashes(world.root.storage, ("folder",), b"c" * CONTEXT_BYTES) is None


@pytest.mark.parametrize(
    ("context", "in_memory", "most"),
    [(b"c", 100_000, 60), (b"c", 99_999, 16), (b"d", 100_000, 1)],
    ids=["the same context", "many rows", "another context"],
)
def test_reading_hashes_takes_little_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, context: bytes, in_memory: int, most: int
) -> None:
    """32 bytes a row are kept and 16 sort them; 4 of many rows. The file of another context is not read."""
    monkeypatch.setattr(row_hashes, "_ROWS_AT_ONCE", 10_000 if in_memory == 100_000 else 1000)
    monkeypatch.setattr(row_hashes, "_IN_MEMORY", in_memory)
    monkeypatch.setattr(parts, "_PART_ROWS", 1000)
    monkeypatch.setattr(parted_records, "_BLOCK_BYTES", 100_000)
    count = 100_000
    content = random.Random(1).randbytes(32 * count)
    halves = [content[at : at + 16] for at in range(0, len(content), 16)]
    written_hashes(world, halves[:count], halves[count:])
    tracemalloc.start()
    try:
        read_row_hashes(world.root.storage, ("folder",), context * CONTEXT_BYTES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < most * count
