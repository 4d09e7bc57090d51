"""bespokelabs-curator: a class with a prompt and a parser, over a dataset of Hugging Face."""

import csv
import json
import os
import sys
from pathlib import Path

folder = Path(sys.argv[1])
os.environ |= {
    "CURATOR_CACHE_DIR": str(folder / "cache"),
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TELEMETRY_ENABLED": "false",
}

from bespokelabs import curator  # noqa: E402
from datasets import Dataset  # noqa: E402


class Asked(curator.LLM):
    def prompt(self, row):
        return row["text"]

    def parse(self, row, response):
        return {"id": row["id"], "text": response}


rows = list(csv.DictReader((folder / "rows.csv").open()))
backend = {"base_url": os.environ["ANTHROPIC_BASE_URL"], "batch_check_interval": 1}
asked = Asked(model_name="claude-haiku-4-5", batch=True, backend="anthropic", backend_params=backend)
answers = asked(Dataset.from_list(rows))
with (folder / "answers.jsonl").open("w") as file:
    for answer in getattr(answers, "dataset", answers):
        file.write(json.dumps(answer) + "\n")
