"""A ledger with many partitions, written at once."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from batch_assets.core.ledger import tables
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.open_root import open_root


def fill(pipeline: str, *, complete: int = 0, running: int = 0, unsent: int = 0) -> None:
    """Write submissions of one file each into the ledger of the environment, and their files under its root.

    Args:
        pipeline: The name of the pipeline.
        complete: How many partitions are complete. Their keys are a0000, a0001 and so on, each with 10 rows.
        running: How many wait for a batch (r0000, …).
        unsent: How many no user has begun to send (u0000, …).
    """
    kinds = [("a", complete), ("r", running), ("u", unsent)]
    partitions = [(f"{kind}{number:04}", kind) for kind, many in kinds for number in range(many)]
    with open_root() as root, root.ledger.write() as tx:
        submissions, files, waits, batches = [], [], [], []
        for position, (key, kind) in enumerate(partitions):
            submission_id = f"20260101T{position:06}-{pipeline[:8]:0<8}"
            file_id, batch_id = f"{submission_id}/part-00000.jsonl", f"msgbatch_{pipeline}_{key}"
            age = tx.now - 1000.0 + position / 1000
            final = age + 100 if kind == "a" else None
            counts = dict.fromkeys(("rows", "requests", "written"), 10)
            bounds = {"rejected": 0, "max_attempts": 3, "max_requests": 10, "max_bytes": 10, "ask_again": 0}
            of_pipeline = {"pipeline": pipeline, "partition": key}
            times = {"created_at": age, "began_at": None if kind == "u" else age, "final_at": final}
            joined = {"joined_seq": None if kind == "u" else 10**6, "announced_at": final}
            results = '{"succeeded": 9, "errored": 1}' if kind == "a" else None
            submissions.append(
                {"id": submission_id, "headers": "{}", "counts": results, "left_out": 0}
                | {"joined_at": final}
                | of_pipeline
                | counts
                | bounds
                | times
                | joined
            )
            state = {"a": FileState.COLLECTED, "r": FileState.SUBMITTED, "u": FileState.READY}[kind]
            file = {"id": file_id, "submission_id": submission_id, "name": "part-00000.jsonl", "requests": 10}
            sent = {"batch_id": None if kind == "u" else batch_id, "collected_seq": 1 if kind == "a" else None}
            files.append(
                file | of_pipeline | sent | {"bytes": 10, "attempt": 1, "state": state, "not_before": 0.0}
            )
            waits.append({"submission_id": submission_id, "file_id": file_id})
            if kind != "u":
                known = {
                    "id": batch_id,
                    "file_id": file_id,
                    "pipeline": pipeline,
                    "processing_status": "in_progress",
                }
                ended = {"state": BatchState.COLLECTED if kind == "a" else BatchState.OPEN, "submitted_at": age}
                outcomes = results or '{"processing": 4, "succeeded": 6}'
                seen = {"requests": 10, "counts": outcomes, "created_at": age, "ended_at": final}
                batches.append(known | ended | seen | {"next_poll_at": tx.now + 60, "expires_at": age + 86400})
            folder = Path(root.settings.root, pipeline, "requests", f"partition={key}", submission_id)
            folder.mkdir(parents=True)
            (folder / "manifest.json").touch()
            (folder / "part-00000.jsonl").touch()
        written = [(tables.submission, submissions), (tables.request_file, files)]
        for table, rows in [*written, (tables.wait, waits), (tables.batch, batches)]:
            if rows:
                tx.connection.execute(sa.insert(table), rows)
