"""What an asset's page shows: descriptions, columns, and the metadata of every materialization."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pydantic import BaseModel

from batch_assets.core.answers.result_columns import RESULT_NAMES, TOOL_CALLS
from batch_assets.core.client_settings import REAL_BASE_URL
from batch_assets.core.prices.prices import default_prices
from batch_assets.core.settings import Settings
from batch_assets.core.spend.spend_table import PAID_IN_VAIN, SAVED
from batch_assets.dagster import keys
from batch_assets.dagster.metadata.columns import DESCRIPTIONS
from batch_assets.dagster.metadata.console import console_link
from batch_assets.dagster.metadata.markdown import fenced
from batch_assets.emulator import Emulator

MakeAssets = Callable[..., list[dg.AssetsDefinition]]
DOCS = Path(__file__).parents[2] / "docs"
CREATE = {"method": "POST", "path": "/v1/messages/batches"}


def spec_of(assets: list[dg.AssetsDefinition], stage: str) -> dg.AssetSpec:
    return next(spec for asset in assets for spec in asset.specs if spec.key.path[-1] == stage)


def run(
    assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance, *stages: str, **more: Any
) -> dict[str, Any]:
    """Materialize, and return the metadata values of what was materialized, by stage."""
    selection = [asset.key for asset in assets if not stages or asset.key.path[-1] in stages]
    result = dg.materialize(assets, selection=selection, instance=instance, **more)
    return {
        event.asset_key.path[-1]: {key: value.value for key, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def params(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "{{ text }}"}]
    return {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": messages, **more}


def test_the_description_shows_the_prompt_with_the_files_it_includes(
    make_assets: MakeAssets, tmp_path: Path
) -> None:
    (tmp_path / "system.md").write_text("You greet.\n```\n{% include 'tone.md' %}\n```\nBe brief.\n")
    (tmp_path / "tone.md").write_text("Warm, never loud.\n")
    (tmp_path / "question.md").write_text("Who is {{ text }}?\n")
    (tmp_path / "long.md").write_text("x" * 5000)
    content = "{% include 'question.md' %}\n{%- include \"long.md\" -%}{% include 'gone.md' ignore missing %}"
    prompt = params(system="{% include 'system.md' %}", messages=[{"role": "user", "content": content}])
    description = spec_of(make_assets(params=prompt), "requests").description or ""
    # The fence is longer than any in the text, which therefore cannot end it.
    assert "````text\nYou greet.\n```\nWarm, never loud.\n```\nBe brief.\n````" in description
    assert "model: claude-haiku-5-5" in description
    assert "system:" not in description
    assert "**File `question.md`**\n\n```text\nWho is {{ text }}?\n```" in description
    assert f"{'x' * 4000}\n```\n\n*… and 1,000 more characters.*" in description
    assert "gone.md`" not in description


def test_long_lines_of_a_prompt_are_wrapped_and_markdown_is_left_alone(make_assets: MakeAssets) -> None:
    lines = ["# Say **what** it is", "", "  - " + "an item with many words, " * 8, "w" * 200, "a  b"]
    description = spec_of(make_assets(params=params(system="\n".join(lines))), "requests").description or ""
    shown = description.partition("```text\n")[2].partition("\n```")[0].split("\n")
    assert [shown[0], shown[1], *shown[-2:]] == [lines[0], "", *lines[-2:]]
    assert len(shown) == 7 and all(len(line) <= 88 for line in shown[2:5])
    assert all(line.startswith("  ") for line in shown[2:5])
    assert " ".join(" ".join(shown[2:5]).split()) == lines[2].strip()


def test_a_long_text_in_params_is_cut(make_assets: MakeAssets) -> None:
    prompt = params(messages=[{"role": "user", "content": "{{ text }}" + "y" * 9000}])
    description = spec_of(make_assets(params=prompt), "requests").description or ""
    assert "… and 8,010 more characters" in " ".join(description.split())
    assert len(description) < 3000


@pytest.mark.parametrize("text", ["plain", "```", "a ````` b", "ends\n"])
def test_nothing_in_a_text_ends_its_block(text: str) -> None:
    first, *inside, last = fenced(text, "md").split("\n")
    assert "\n".join(inside) == text.rstrip("\n")
    assert first == f"{last}md"
    assert last not in text


def test_columns_are_described_as_the_docs_describe_them(make_assets: MakeAssets) -> None:
    written = dict(re.findall(r"^\| `(\w+)` \| [\w \[\],]+ \| (.+) \|$", (DOCS / "results.md").read_text(), re.M))
    assert set(DESCRIPTIONS) == {*RESULT_NAMES, TOOL_CALLS.name}
    without_links = {name: re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text) for name, text in written.items()}
    assert {name: without_links[name] for name in DESCRIPTIONS} == DESCRIPTIONS
    schema: dg.TableSchema = spec_of(make_assets(), "results").metadata[keys.COLUMN_SCHEMA]
    columns = {column.name: column for column in schema.columns}
    assert columns["attempts"].description == DESCRIPTIONS["attempts"]
    assert (columns["id"].constraints.nullable, columns["id"].constraints.unique) == (False, True)
    assert columns["stop_reason"].constraints.nullable


def test_types_of_columns_are_readable(make_assets: MakeAssets) -> None:
    mood = {"type": "string", "enum": ["good", "bad"]}
    nested = {"type": "object", "properties": {"m": mood}, "required": ["m"], "additionalProperties": False}
    schema = {
        "type": "object",
        "properties": {"mood": mood, "moods": {"type": "array", "items": mood}, "nested": nested},
        "required": ["mood", "moods", "nested"],
        "additionalProperties": False,
    }
    known: dg.TableSchema = spec_of(make_assets(output_schema=schema), "results").metadata[keys.COLUMN_SCHEMA]
    types = {column.name: column.type for column in known.columns}
    assert types["mood"] == "enum of string"
    assert types["moods"] == "list<enum of string>"
    assert types["nested"] == "struct<m: enum of string>"
    assert types["cost_usd"] == "double"


class Mood(BaseModel):
    score: int


def test_a_model_itself_is_an_output_schema(make_assets: MakeAssets) -> None:
    known: dg.TableSchema = spec_of(make_assets(output_schema=Mood), "results").metadata[keys.COLUMN_SCHEMA]
    assert {column.name: column.type for column in known.columns}["score"] == "int64"


def test_the_path_of_the_results_is_known_before_the_first_run(
    make_assets: MakeAssets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metadata = spec_of(make_assets(), "results").metadata
    assert metadata[keys.URI] == str(tmp_path / "root" / "greetings" / "results")
    assert keys.TABLE_NAME not in metadata
    monkeypatch.setenv("BATCH_ASSETS_LEDGER", "sqlite:///elsewhere.db")
    for root, uri in {
        "s3://bucket/data/": "s3://bucket/data/greetings/results",
        "s3://key:secret@bucket/data": None,
        "https://host/data?signature=secret": None,
    }.items():
        monkeypatch.setenv("BATCH_ASSETS_ROOT", root)
        assert spec_of(make_assets(), "results").metadata.get(keys.URI) == uri
    monkeypatch.delenv(
        "BATCH_ASSETS_LEDGER"
    )  # a remote root needs a ledger: the first run reports this, loading does not
    assert keys.URI not in spec_of(make_assets(), "results").metadata


def test_the_table_in_a_database_has_its_name(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    assets = make_assets(sink={"url": f"sqlite:///{tmp_path}/answers.db", "table": "answers"})
    assert spec_of(assets, "results").metadata[keys.TABLE_NAME] == "answers"
    assert run(assets, instance)["results"][keys.TABLE_NAME] == "answers"


def test_a_materialization_shows_what_was_sent_paid_and_reused(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.settings(latency=0.0)
    # Rows 2 and 3 have the same request.
    prompt = params(messages=[{"role": "user", "content": "{{ text | replace('3', '2') }}"}])
    stages = run(make_assets(params=prompt), instance)
    first = stages["results"]
    table = pd.read_parquet(tmp_path / "root" / "greetings" / "results")
    assert first[keys.COST_USD] == first[keys.NEW_COST_USD] == pytest.approx(table["cost_usd"].sum())
    assert first[keys.LIVE_COST_USD] == pytest.approx(2 * first[keys.COST_USD])
    assert (first[keys.REQUESTS], first[keys.NEW], first[keys.ATTEMPTS]) == (3, 3, 1)
    statuses = ("succeeded", "errored", "expired", "canceled", "rejected", "pending")
    assert [first.get(keys.count_key(kind)) for kind in statuses] == [4, None, None, None, 1, None]
    assert not {keys.REUSED, keys.REUSED_COST_USD, keys.CACHE_READ_TOKENS, keys.INVALID_OUTPUTS} & first.keys()
    zeros = {key for key, value in first.items() if isinstance(value, int | float) and not value}
    assert zeros <= {keys.QUEUE_SECONDS, keys.PROCESSING_SECONDS, keys.COLLECTION_SECONDS}
    assert first[keys.INPUT_TOKENS] == table["input_tokens"].sum()
    assert first[keys.BYTES] == stages["requests"][keys.BYTES] > 0
    assert 0 <= first[keys.QUEUE_SECONDS] < 60
    assert 0 <= first[keys.PROCESSING_SECONDS] < 60
    assert 0 <= first[keys.COLLECTION_SECONDS] < 60
    assert keys.CONSOLE not in first
    schema = {column.name: column for column in first[keys.COLUMN_SCHEMA].columns}
    assert schema["cost_usd"].description == DESCRIPTIONS["cost_usd"]

    # Three were answered before, and two fail for good.
    emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    again = run(make_assets(rows=6, params=prompt), instance)["results"]
    assert (again[keys.REQUESTS], again[keys.NEW], again[keys.REUSED]) == (5, 2, 3)
    assert again[keys.COST_USD] == again[keys.REUSED_COST_USD] == pytest.approx(first[keys.COST_USD])
    assert again[keys.NEW_COST_USD] == 0.0
    assert again[keys.count_key("errored")] == 2
    assert "| errored | permission\\_error | 2 |" in again[keys.ERRORS]
    assert "| rejected | empty" in again[keys.ERRORS]


def test_an_unknown_cost_is_never_a_number(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.settings(latency=0.0)
    known = run(make_assets(), instance)["results"]
    assert keys.COST_UNKNOWN not in known
    monkeypatch.delitem(default_prices()._models, "claude-haiku-5-5")
    metadata = run(make_assets(rows=6), instance)["results"]
    assert metadata[keys.COST_UNKNOWN] == "The cost is unknown: no price for claude-haiku-5-5."
    assert not {keys.COST_USD, keys.NEW_COST_USD, keys.LIVE_COST_USD} & set(metadata)
    assert metadata[keys.REUSED_COST_USD] == pytest.approx(known[keys.COST_USD])


def test_ten_rows_are_shown_and_how_to_retry_the_failed_ones(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.settings(latency=0.0)
    metadata = run(make_assets(rows=30), instance)["results"]
    assert metadata[keys.SAMPLE].count("| succeeded |") == 10
    emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 0.5, "refusal": 0.5}}}])
    days = dg.StaticPartitionsDefinition(["a/b"])
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days))
        for asset in make_assets("unlucky", rows=60)
    ]
    metadata = run(assets, instance, partition_key="a/b")["results"]
    failed = metadata[keys.FAILED_ROWS]
    assert failed.count("| errored |") == 10
    assert metadata[keys.UNUSABLE_ANSWERS].count("| succeeded | refusal |") == 10
    assert "| succeeded |" not in metadata[keys.SAMPLE]
    assert "launch the job `unlucky_retry_failed` for the partition `a/b`" in failed
    assert "`batch-assets run unlucky --partition a/b --retry-failed`" in failed


def test_batches_are_listed_with_state_and_deadlines(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets(batching={"max_requests": 2})
    sent = run(assets, instance)["batches"][keys.BATCH_TABLE].replace("\\", "")
    observed = observed_table(assets, instance)
    for table, known in ((sent, ["2"]), (observed, ["in_progress", "2", "2 processing"])):
        rows = {row.split()[1]: row for row in table.splitlines() if "msgbatch" in row}
        assert set(rows) == {batch["id"] for batch in emulator.log()}
        for batch_id, row in rows.items():
            cells = [cell.strip() for cell in row.split("|")[1:-1]]
            assert cells[: len(known) + 1] == [batch_id, *known]
            created, ends, until = (pd.Timestamp(cell) for cell in cells[len(known) + 1 :])
            assert ends - created == pd.Timedelta(hours=24)
            assert until - created == pd.Timedelta(days=29)


def observed_table(assets: list[dg.AssetsDefinition], instance: dg.DagsterInstance) -> str:
    """The table of batches in the last observation."""
    (record,) = instance.fetch_observations(assets[1].key, limit=1).records
    assert record.asset_observation is not None
    return str(record.asset_observation.metadata[keys.BATCH_TABLE].value).replace("\\", "")


def test_no_batch_is_shown_in_progress_after_its_end_also_without_the_sensor(
    make_assets: MakeAssets, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    assets = make_assets(batching={"max_requests": 2})
    sent = run(assets, instance)["batches"][keys.BATCH_TABLE]
    assert "in_progress" in observed_table(assets, instance)
    emulator.end_batches()
    assert dg.materialize(assets, selection=[assets[-1].key], instance=instance).success
    assert observed_table(assets, instance).count("| collected |") == 2
    assert "progress" not in observed_table(assets, instance) + sent
    assert dg.materialize(assets, selection=[assets[-1].key], instance=instance).success
    observations = instance.fetch_observations(assets[1].key, limit=9).records
    assert len(observations) == 2, "nothing was collected in the last run"


def test_the_console_is_linked_for_the_real_api_only() -> None:
    def settings(**env: str) -> Settings:
        return Settings.from_env({"BATCH_ASSETS_ROOT": "/data", **env})

    real = settings(ANTHROPIC_API_KEY="any")
    assert real.base_url == REAL_BASE_URL
    (link,) = console_link(real, ["msgbatch_1"]).values()
    assert link.value == "https://platform.claude.com/workspaces/default/batches"
    assert console_link(real, []) == {}
    gateway = settings(ANTHROPIC_API_KEY="any", ANTHROPIC_BASE_URL="https://gateway.example")
    assert console_link(gateway, ["msgbatch_1"]) == {}
    assert console_link(settings(BATCH_ASSETS_EMULATOR="http://127.0.0.1:9"), ["msgbatch_1"]) == {}


def test_every_key_is_documented() -> None:
    written = set(re.findall(r"`((?:batch_assets|dagster)/\w+)`", (DOCS / "metadata.md").read_text()))
    named = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    counted = {
        keys.count_key(kind)
        for kind in ("succeeded", "errored", "expired", "canceled", "rejected", "pending", "processing")
    }
    spent = {keys.total_key(column) for column in (*SAVED, *PAID_IN_VAIN)}
    assert written == named | counted | spent
    assert [key for key in written if key.startswith("batch_assets/") and len(key) > 34] == [], (
        "too long to be shown"
    )
