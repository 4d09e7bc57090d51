"""Airflow's LLMBatchOperator, executed for the same task instance each time, as a retry of the task does."""

import csv
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

folder = Path(sys.argv[1])
connection = {
    "conn_type": "pydanticai",
    "password": os.environ["ANTHROPIC_API_KEY"],
    "host": os.environ["ANTHROPIC_BASE_URL"],
}
os.environ |= {"AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW_CONN_EMULATOR": json.dumps(connection)}

from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator  # noqa: E402

operator = LLMBatchOperator(
    task_id="ask",
    requests=[row["text"] for row in csv.DictReader((folder / "rows.csv").open())],
    result_path=f"file://{folder}/results",
    llm_conn_id="emulator",
    model_id="anthropic:claude-haiku-4-5",
    max_tokens=100,
    poll_interval=30,
)
task = SimpleNamespace(
    dag_id="asked", task_id="ask", run_id="manual", map_index=-1, try_number=1, xcom_push=lambda **_: None
)
operator.execute({"ti": task, "task_instance": task})
with (folder / "answers.jsonl").open("w") as file:
    for path in sorted((folder / "results").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["status"] == "success":
                file.write(json.dumps({"id": str(row["index"]), "text": row["output"]}) + "\n")
