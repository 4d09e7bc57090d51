"""dagster-community-components: AnthropicLlmBatchComponent, materialized in an instance of its own."""

import json
import sys
from pathlib import Path

import dagster as dg
import pandas as pd
from dagster_community_components.assets.ai.anthropic_llm_batch.component import AnthropicLlmBatchComponent

folder = Path(sys.argv[1])


@dg.asset
def rows():
    return pd.read_csv(folder / "rows.csv", dtype=str)


component = AnthropicLlmBatchComponent(
    asset_name="asked",
    upstream_asset_key="rows",
    prompt_column="text",
    id_column="id",
    model="claude-haiku-4-5",
    wait_for_completion=True,
    poll_interval_seconds=1,
)
definitions = dg.Definitions.merge(
    component.build_defs(dg.ComponentTree.for_test().load_context), dg.Definitions(assets=[rows])
)
with dg.DagsterInstance.get() as instance:
    done = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, raise_on_error=False
    )
    if not done.success:
        sys.exit(1)
    table = done.output_for_node("asked")
with (folder / "answers.jsonl").open("w") as file:
    for row in table.to_dict("records"):
        if row["result_type"] == "succeeded":
            file.write(json.dumps({"id": row["custom_id"], "text": row["raw_output"]}) + "\n")
