"""Columns that were added to results later: they give way to a pipeline's own, and older tables get them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.core.answers import result_columns
from batch_assets.core.answers.result_columns import (
    SINCE,
    TOOL_CALLS,
    ColumnGroups,
    fields_after,
    given_way,
    ways_to_have_both,
)
from batch_assets.core.store import join_inputs

from ..support import BATCHES, World, texts

_CREATE = {"method": "POST", "path": BATCHES}
_SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["glad", "sad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


def test_newer_columns_give_way_to_those_of_the_pipeline(world: World, caplog: pytest.LogCaptureFixture) -> None:
    own = ["thinking_tokens", "IS_OK"]
    assert {name.casefold() for name in own} == set(SINCE), "every column that was added"
    rows = [{"id": f"{number}", "text": "a", **dict.fromkeys(own, f"mine {number}")} for number in range(2)]
    (world.folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"path": "own.jsonl", "key": "id"}
    table = world.run(world.pipeline(dataset=dataset))  # the dataset, not the pipeline file, shows what it carries
    columns = {name: f"dataset_{name.casefold()}" for name in own}
    for name, other in columns.items():
        assert table[name].tolist() == ["mine 0", "mine 1"]
        assert f"`dataset.columns` as a map with the line `{name}: {other}`" in caplog.text
    assert "is_ok" not in table.columns
    caplog.clear()
    table = world.run(world.pipeline(dataset=dataset | {"columns": columns}))
    assert not caplog.text
    assert table["is_ok"].tolist() == [True, True]
    for other in columns.values():
        assert table[other].tolist() == ["mine 0", "mine 1"]


@pytest.mark.parametrize("name", SINCE)
def test_the_way_to_have_both_is_named(name: str) -> None:
    def ways(key: str = "id", carried: dict[str, str] | None = None, typed: tuple[str, ...] = ()) -> list[str]:
        return list(ways_to_have_both(key, "number", carried or {}, typed))

    assert ways() == []
    (of_key,) = ways(key=name)
    (of_column,) = ways(carried={"ok?": name})
    (of_property,) = ways(typed=(name,))
    assert of_key.endswith(f"`key: {{number: dataset_{name}}}`")
    assert of_column.endswith(f"`ok?: dataset_{name}`")
    assert of_property.endswith("rename the property")


def test_the_order_tells_whose_a_column_is() -> None:
    mood, is_ok = pa.field("mood", pa.string()), pa.field("is_ok", pa.string())
    fields = [*map(pa.field, ("id", "text"), (pa.string(),) * 2), *fields_after(["id"], [mood, is_ok, TOOL_CALLS])]
    groups = ColumnGroups.of(fields)
    assert (groups.key, groups.carried, groups.typed) == ("id", ["text"], ["mood", "is_ok"])
    assert groups.ours[:3] == ["custom_id", "result_type", "response_text"]
    assert TOOL_CALLS.name in groups.ours and given_way(["Is_OK"]) == {"is_ok"}
    with pytest.raises(ValueError, match="custom_id"):
        ColumnGroups.of([mood])


def test_is_ok_names_the_rows_whose_answer_is_whole_and_valid(world: World) -> None:
    shares = dict.fromkeys(("refusal", "max_tokens", "pause_turn", "malformed", "permission_error"), 0.15)
    world.emulator.faults([{"match": _CREATE, "action": {"error_mix": shares}}])
    pipeline = world.pipeline(texts(60) | {"blank": ""}, output_schema=_SCHEMA)
    table = world.run(pipeline)
    schema = pq.read_schema(world.path("asked", "results", "results.parquet"))
    assert schema.field("is_ok").type == pa.bool_()
    assert table["is_ok"].dtype == bool, "never null, so that it selects rows as it is"
    is_whole = table["stop_reason"] == "end_turn"
    expected = (table["result_type"] == "succeeded") & is_whole & (table["error_type"] != "invalid_output")
    assert table["is_ok"].equals(expected)
    assert {"refusal", "max_tokens", "pause_turn", "end_turn"} <= set(table["stop_reason"].dropna())
    assert (~table["is_ok"] & is_whole).any(), "an answer that is whole and does not match"
    assert table["is_ok"].any() and table["mood"][table["is_ok"]].notna().all()
    plain = world.run(world.pipeline(texts(60), name="plain"))  # without a schema, a refusal has no error type
    assert plain["is_ok"].equals(plain["stop_reason"] == "end_turn")
    assert plain["error_type"][plain["stop_reason"] == "refusal"].isna().all()


def test_a_table_of_an_earlier_version_gets_the_column_without_a_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = world.pipeline(texts(3))
    with monkeypatch.context() as earlier:
        fields = [field for field in result_columns.BEFORE_OUTPUT if field.name != "is_ok"]
        earlier.setattr(result_columns, "BEFORE_OUTPUT", fields)
        earlier.setattr(join_inputs, "VERSION", 2)
        before = world.run(pipeline)
        assert "is_ok" not in before.columns
    sent = len(world.emulator.log())
    world.finish(pipeline)
    after = world.table(pipeline)
    assert after["is_ok"].all() and after.drop(columns="is_ok").equals(before)
    assert len(world.emulator.log()) == sent
    path = world.path("asked", "results", "results.parquet")
    written = path.stat().st_ino
    world.finish(pipeline)
    assert path.stat().st_ino == written, "it is written again once"
