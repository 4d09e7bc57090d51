"""firming: jobs with a deadline, and a ticket that a later process can collect."""

import csv
import json
import sys
from pathlib import Path

import firming
from firming import ticket as tickets

folder = Path(sys.argv[1])
rows = list(csv.DictReader((folder / "rows.csv").open()))
path = folder / "ticket.json"
jobs = [firming.job("claude-haiku-4-5", row["text"], max_tokens=100) for row in rows]
if path.exists():
    ticket = tickets.Ticket.load(path)
else:
    ticket = tickets.submit(jobs, deadline="2h")
    ticket.save(path)
results = tickets.collect(ticket, poll_interval=1.0)
with (folder / "answers.jsonl").open("w") as file:
    for row, result in zip(rows, results, strict=True):
        if result.text is not None:
            file.write(json.dumps({"id": row["id"], "text": result.text}) + "\n")
