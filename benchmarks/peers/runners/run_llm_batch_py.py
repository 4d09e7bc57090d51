"""llm-batch-py: a job over a polars frame, run again until no row is pending."""

import json
import sys
import time
from pathlib import Path

import polars as pl
from llm_batch_py import (
    AnthropicConfig,
    BatchConfig,
    LockConfig,
    ResultCacheStoreConfig,
    Runner,
    StructuredOutputJob,
    structured_template,
)
from pydantic import BaseModel

folder = Path(sys.argv[1])


class Answer(BaseModel):
    answer: str


job = StructuredOutputJob(
    name="asked",
    key_cols=["id"],
    input_df=pl.read_csv(folder / "rows.csv", schema_overrides={"id": pl.String}),
    prompt_builder=structured_template(system="Answer.", messages="{{ row.text }}", name="asked", version="v1"),
    output_model=Answer,
    provider=AnthropicConfig(model="claude-haiku-4-5", max_output_tokens=100),
    result_cache=ResultCacheStoreConfig(root_uri=str(folder / "cache")),
    lock=LockConfig(ttl_seconds=5),
    batch=BatchConfig(batch_size=500),
)
end = time.monotonic() + 60
while True:
    table = Runner().run(job)
    if table["answer"].null_count() == 0 or time.monotonic() > end:
        break
    time.sleep(1)
with (folder / "answers.jsonl").open("w") as file:
    for row in table.filter(pl.col("answer").is_not_null()).iter_rows(named=True):
        file.write(json.dumps({"id": row["id"], "text": row["answer"]}) + "\n")
