"""What was asked about one row: each version of its request, with the prompt as it was sent, and the answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.ledger.recent import RecentBatch, recent_submissions, with_answers_of
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.submissions import waited_on
from batch_assets.core.root import Root
from batch_assets.core.store.digests import tail_of
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_index import DIGEST, MESSAGE
from batch_assets.core.store.request_lines import WINDOW, params_of
from batch_assets.dashboard.tables import Tables

# The submissions of a partition that are looked through, the newest first.
_MOST_SUBMISSIONS = 20
_ANSWER = (
    "digest, batch_id, result_type, response_text, stop_reason, response_model, input_tokens, output_tokens, "
    "cost_usd, error_type, error_message, attempts, ended_at"
)


@dataclass(frozen=True)
class Answer:
    """What the API returned for a request once.

    Attributes:
        values: The columns of the response.
        batch: Its batch; `None` for live calls, imported answers and what was never sent.
    """

    values: dict[str, Any]
    batch: RecentBatch | None


@dataclass(frozen=True)
class Version:
    """A version of a row's request: submissions that rendered the row to the same request.

    Attributes:
        digest: The digest of the request; `None` if the row was rejected.
        submissions: The submissions that have it, the newest first.
        params: The params as they were sent; `None` if no request file has them.
        rejected: Why the row was rejected; `None` if it was not.
        answers: The answers, the earliest attempt first.
    """

    digest: bytes | None
    submissions: tuple[Submission, ...]
    params: dict[str, Any] | None
    rejected: str | None
    answers: tuple[Answer, ...]

    @property
    def first_at(self) -> float:
        """When it was built first, seconds since 1970."""
        return min(submission.created_at for submission in self.submissions)


def versions_of(root: Root, tables: Tables, pipeline: str, partition: str, key: str) -> list[Version]:
    """Return the versions of a row's request, the newest first.

    Args:
        root: The root.
        tables: Its tables.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        key: The row key, as text.
    """
    with root.ledger.read() as tx:
        built = recent_submissions(tx, pipeline, partition, _MOST_SUBMISSIONS)
        files = {submission.id: waited_on(tx, submission.id) for submission in built}
    requests = _requests(root, tables, built, key)
    answers = _answers(root, tables, pipeline, [digest for digest, _ in requests.values() if digest is not None])
    versions = []
    for digest, rejected in dict.fromkeys(requests.values()):
        having = tuple(each for each in built if requests.get(each.id) == (digest, rejected))
        params = None
        if digest is not None:
            sent = [answer.batch.file_id for answer in answers.get(digest, ()) if answer.batch is not None]
            its_files = [file for submission in having for file in files[submission.id]]
            params = _params(root, digest, sorted(its_files, key=lambda file: file.id not in sent))
        versions.append(Version(digest, having, params, rejected, answers.get(digest or b"", ())))
    return versions


def _requests(
    root: Root, tables: Tables, built: Sequence[Submission], key: str
) -> dict[str, tuple[bytes | None, str | None]]:
    """Return the digest of a row's request, and why it was rejected, by submission. Others do not have the row."""
    found: dict[str, tuple[bytes | None, str | None]] = {}
    with tables.database() as db:
        for submission in built:
            parts = (*submission_parts(submission.pipeline, submission.partition, submission.id), "index.parquet")
            if not root.storage.is_file(*parts):
                continue
            source = db.read_parquet(tables.uri(*parts))
            condition = f'CAST("{source.columns[0].replace(chr(34), chr(34) * 2)}" AS VARCHAR) = ?'
            row = db.execute(
                f'SELECT "{DIGEST}", "{MESSAGE}" FROM source WHERE {condition} LIMIT 1', [key]
            ).fetchone()
            if row is not None:
                found[submission.id] = row
    return found


def _answers(
    root: Root, tables: Tables, pipeline: str, digests: Iterable[bytes]
) -> dict[bytes, tuple[Answer, ...]]:
    """Return the answers to requests, by digest."""
    wanted = list(dict.fromkeys(digests))
    names = sorted(name for name in root.storage.names(pipeline, "responses") if name.endswith(".parquet"))
    if not wanted or not names:
        return {}
    uris = [tables.uri(pipeline, "responses", name) for name in names]
    with tables.database() as db:
        marks = ", ".join("?" * len(wanted))
        statement = f"SELECT {_ANSWER} FROM read_parquet(?) WHERE digest IN ({marks}) ORDER BY attempts, ended_at"
        rows = db.execute(statement, [uris, *wanted]).fetchall()
    columns = _ANSWER.split(", ")
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    ids = sorted({row["batch_id"] for row in found if row["batch_id"]})
    with root.ledger.read() as tx:
        batches = {each.batch.id: each for each in with_answers_of(tx, ids)}
    answers: dict[bytes, tuple[Answer, ...]] = {}
    for row in found:
        digest = bytes(row.pop("digest"))
        answers[digest] = (*answers.get(digest, ()), Answer(row, batches.get(row["batch_id"])))
    return answers


def _params(root: Root, digest: bytes, files: Iterable[RequestFile]) -> dict[str, Any] | None:
    """Return the params of a request from the first request file that has it; `None` if none has."""
    tail = tail_of(digest)
    for file in files:
        try:
            for line in StoredRequestFile.of(root.storage, file).lines():
                if tail in line[:WINDOW]:
                    params: dict[str, Any] = json.loads(params_of(line))
                    return params
        except (FileNotFoundError, DamagedFileError, ValueError):
            continue
    return None
