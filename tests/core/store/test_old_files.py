"""Files of an earlier version, which lack a column that was added since: the column is read as null."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.answers import result_columns
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import joins, submissions
from batch_assets.core.results.run import collect_results
from batch_assets.core.store import response_reader, responses

from ..support import World, texts

_NEW = pa.field("service_tier", pa.string())


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> pa.Schema:
    """A later version: results have one more column, and so have the responses that it reads."""
    wider = responses.RESPONSE_SCHEMA.append(_NEW)
    for module in (responses, response_reader):
        monkeypatch.setattr(module, "RESPONSE_SCHEMA", wider)
    monkeypatch.setattr(result_columns, "AFTER_OUTPUT", [*result_columns.AFTER_OUTPUT, _NEW])
    return wider


def _response_files(world: World) -> list[Path]:
    return sorted(world.path("asked", "responses").glob("*.parquet"))


def _rewrite(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path)


def _join_again(world: World) -> pd.DataFrame:
    pipeline = world.pipeline("rows.jsonl", batching={"max_requests": 20})
    with world.root.ledger.write() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        joins.join_again(tx, newest.id)
    world.finish(pipeline)
    return world.table(pipeline)


def _assert_it_is_downloaded_again(world: World, stored: Path, before: pd.DataFrame) -> None:
    after = _join_again(world)
    assert stored.with_name(f"{stored.name}.damaged").exists()
    assert after["response_text"].equals(before["response_text"])


@pytest.mark.parametrize("scattered", [False, True])
def test_a_newer_column_of_responses_is_null_in_the_results_of_older_files(
    world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, scattered: bool
) -> None:
    before = world.run(world.pipeline(texts(40), batching={"max_requests": 20}))
    old, new = _response_files(world)
    request.getfixturevalue("next_version")
    table = pq.read_table(new)
    _rewrite(new, table.append_column(_NEW, pa.array(["batch"] * len(table))))
    if scattered:
        monkeypatch.setattr("batch_assets.core.results.survey._LOADS", 0)
    after = _join_again(world)
    assert after[before.columns.tolist()].equals(before)
    assert after.columns[-1] == "service_tier"
    of_new = after["batch_id"] == new.stem
    assert of_new.sum() == len(table) and len(pq.read_table(old)) == 40 - len(table)
    assert (after["service_tier"][of_new] == "batch").all()
    assert after["service_tier"][~of_new].isna().all()


def test_a_column_of_a_later_version_is_ignored(world: World) -> None:
    before = world.run(world.pipeline(texts(3), batching={"max_requests": 20}))
    (stored,) = _response_files(world)
    _rewrite(stored, pq.read_table(stored).append_column(_NEW, pa.nulls(3, pa.string())))
    assert _join_again(world).equals(before)


@pytest.mark.parametrize("name", responses._FIRST.names)
def test_a_response_file_without_a_column_of_the_first_version_is_set_aside(world: World, name: str) -> None:
    before = world.run(world.pipeline(texts(1), batching={"max_requests": 20}))
    (stored,) = _response_files(world)
    _rewrite(stored, pq.read_table(stored).drop_columns([name]))
    problem = (
        f"{stored} is damaged: it has no column {name} of type .*Restore it from a backup\\. Do not remove it"
    )
    with pytest.raises(DamagedFileError, match=problem):
        responses.open_responses(world.root.storage, "asked", ResponseName.of_batch(stored.stem))
    _assert_it_is_downloaded_again(world, stored, before)


@pytest.mark.parametrize("field", [pa.field("input_tokens", pa.string()), pa.field(_NEW.name, pa.int64())])
def test_a_column_of_another_type_is_set_aside(world: World, next_version: pa.Schema, field: pa.Field) -> None:
    before = world.run(world.pipeline(texts(1), batching={"max_requests": 20}))
    (stored,) = _response_files(world)
    table = pq.read_table(stored)
    if field.name in table.column_names:
        table = table.drop_columns([field.name])
    _rewrite(stored, table.append_column(field, pa.nulls(1, field.type)))
    wanted = next_version.field(field.name).type
    problem = (
        f"{stored} is damaged: it has no column {field.name} of type {wanted}.*Restore it from a backup\\. Do"
    )
    with pytest.raises(DamagedFileError, match=problem):
        responses.open_responses(world.root.storage, "asked", ResponseName.of_batch(stored.stem))
    _assert_it_is_downloaded_again(world, stored, before)


@pytest.mark.parametrize("name", ["batch_assets.digest", "batch_assets.reason", "batch_assets.message", None])
def test_a_request_index_that_is_damaged_is_named(world: World, name: str | None) -> None:
    world.run(world.pipeline(texts(1), batching={"max_requests": 20}))
    (index,) = world.path("asked", "requests").rglob("index.parquet")
    if name is None:
        index.write_bytes(b"no index")
    else:
        _rewrite(index, pq.read_table(index).drop_columns([name]))
    with pytest.raises(
        DamagedFileError, match=f"{index} is damaged: {f'it has no column {name}' if name else ''}"
    ):
        _join_again(world)


def test_a_response_file_of_the_first_version_is_read(world: World) -> None:
    """It lacks columns that were added since. The cost of live calls is twice the cost in the batch."""
    before = world.run(world.pipeline(texts(3), batching={"max_requests": 20}))
    (stored,) = _response_files(world)
    _rewrite(stored, pq.read_table(stored).select(responses._FIRST.names))
    assert _join_again(world).equals(before.assign(thinking_tokens=None).astype({"thinking_tokens": float}))
    report = collect_results(world.root, "asked").results
    assert report is not None and report.cost_usd is not None
    assert report.live_cost_usd == 2 * report.cost_usd > 0
