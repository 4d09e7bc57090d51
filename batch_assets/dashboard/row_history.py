"""What was asked about one row: each version of its request, with the prompt as it was sent, and the answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger.recent import RecentBatch, recent_submissions, with_answers_of
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.submissions import waited_on
from batch_assets.core.root import Root
from batch_assets.core.store.digests import tail_of
from batch_assets.core.store.follow_up_ids import counts_in, is_follow_up
from batch_assets.core.store.refreshes import refreshes_of
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_index import DIGEST, MESSAGE
from batch_assets.core.store.request_lines import WINDOW, custom_id_of, params_of
from batch_assets.dashboard.columns import ONLY_FILES
from batch_assets.dashboard.tables import Tables

# The submissions of a partition that are looked through, the newest first.
_MOST_SUBMISSIONS = 20
_ANSWER = (
    "digest, custom_id, batch_id, result_type, response_text, stop_reason, response_model, input_tokens, "
    "output_tokens, cost_usd, error_type, error_message, attempts, ended_at, filename"
)


@dataclass(frozen=True)
class Answer:
    """What one attempt brought.

    Attributes:
        values: The columns of the response.
        kind: What the attempt was: a request, retry, refresh, follow-up or live call, or that it was imported or
            refused.
        batch: Its batch; `None` for live calls, imported answers and what was never sent.
    """

    values: dict[str, Any]
    kind: str
    batch: RecentBatch | None


@dataclass(frozen=True)
class Version:
    """A version of a row's request: submissions that rendered the row to the same request.

    Attributes:
        digest: The digest of the request; `None` if the row was rejected.
        submissions: The submissions that have it, the newest first.
        params: The params as they were sent; `None` if no request file has them.
        rejected: Why the row was rejected; `None` if it was not.
        answers: What each attempt brought, also those of follow-ups of its answers, the earliest first.
    """

    digest: bytes | None
    submissions: tuple[Submission, ...]
    params: dict[str, Any] | None
    rejected: str | None
    answers: tuple[Answer, ...]

    @property
    def newest_answer(self) -> Answer | None:
        """The newest answer that succeeded; if none did, what the last attempt brought."""
        succeeded = (each for each in self.answers if each.values["result_type"] == ResultType.SUCCEEDED)
        return max(succeeded, key=lambda each: each.values["ended_at"], default=next(reversed(self.answers), None))

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
    requests = _requests(root, tables, pipeline, built, key)
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
    root: Root, tables: Tables, pipeline: str, built: Sequence[Submission], key: str
) -> dict[str, tuple[bytes | None, str | None]]:
    """Return the digest of a row's request, and why it was rejected, by submission. Others do not have the row."""
    found: dict[str, tuple[bytes | None, str | None]] = {}
    with tables.database() as db, tables.reading(pipeline, "requests"):
        for submission in built:
            parts = (*submission_parts(submission.pipeline, submission.partition, submission.id), "index.parquet")
            if not root.storage.is_file(*parts):
                continue
            source = db.read_parquet(tables.uri(*parts), hive_partitioning=False)
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
    with tables.database() as db, tables.reading(pipeline, "responses"):
        marks = ", ".join("?" * len(wanted))
        source = f"read_parquet(?, filename = true, {ONLY_FILES})"
        # The attempts of a refresh start from 1 again.
        statement = f"SELECT {_ANSWER} FROM {source} WHERE digest IN ({marks}) ORDER BY ended_at, attempts"
        rows = db.execute(statement, [uris, *wanted]).fetchall()
    columns = _ANSWER.split(", ")
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    ids = sorted({row["batch_id"] for row in found if row["batch_id"]})
    with root.ledger.read() as tx:
        batches = {each.batch.id: each for each in with_answers_of(tx, ids)}
        refreshes = refreshes_of(tx, pipeline)
    answers: dict[bytes, tuple[Answer, ...]] = {}
    for row in found:
        digest, name = bytes(row.pop("digest")), ResponseName.parse(row.pop("filename").rpartition("/")[2])
        kind = _kind(name, row, is_refresh=name in refreshes)
        answers[digest] = (*answers.get(digest, ()), Answer(row, kind, batches.get(row["batch_id"])))
    return answers


def _kind(name: ResponseName | None, row: Mapping[str, Any], *, is_refresh: bool) -> str:
    """Return what an attempt was.

    Args:
        name: The name of its response file.
        row: The columns of the response.
        is_refresh: Whether a refresh sent it or waited for it.
    """
    if name is not None and name.is_import:
        return "imported"
    if name is not None and name.is_live:
        return "live call"
    if name is not None and name.refused is not None:
        return "refused"
    step = int(counts_in(pa.array([row["custom_id"]])).sum())
    tried = f"follow-up {step}" if step else "retry" if row["attempts"] > 1 else ""
    return " ".join(filter(None, ["refresh" if is_refresh else "", tried])) or "request"


def _params(root: Root, digest: bytes, files: Iterable[RequestFile]) -> dict[str, Any] | None:
    """Return the params of a request from the first request file that has it; `None` if none has.

    The custom_ids of its follow-ups end with its digest, too.
    """
    tail = tail_of(digest)
    for file in files:
        try:
            for line in StoredRequestFile.of(root.storage, file).lines():
                if tail in line[:WINDOW] and not is_follow_up(custom_id_of(line) or ""):
                    params: dict[str, Any] = json.loads(params_of(line))
                    return params
        except (FileNotFoundError, DamagedFileError, ValueError):
            continue
    return None
