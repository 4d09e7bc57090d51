"""batchor: a durable run over a CSV file, on SQLite."""

import json
import sys
from pathlib import Path

from batchor import (
    AnthropicProviderConfig,
    BatchItem,
    BatchJob,
    BatchRunner,
    CsvItemSource,
    PromptParts,
    SQLiteStorage,
)

folder = Path(sys.argv[1])
source = CsvItemSource(
    folder / "rows.csv", item_id_from_row=lambda row: row["id"], payload_from_row=lambda row: {"text": row["text"]}
)


def prompt(item: BatchItem) -> PromptParts:
    return PromptParts(prompt=item.payload["text"])


job = BatchJob(
    items=source,
    build_prompt=prompt,
    provider_config=AnthropicProviderConfig(model="claude-haiku-4-5", max_tokens=100, poll_interval_sec=1.0),
)
runner = BatchRunner(storage=SQLiteStorage(path=folder / "batchor.db"))
run = runner.start(job, run_id="asked")
run.wait(timeout=60)
with (folder / "answers.jsonl").open("w") as file:
    for result in run.results():
        if result.output_text is not None:
            file.write(json.dumps({"id": result.item_id, "text": result.output_text}) + "\n")
