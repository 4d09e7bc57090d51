"""A sample of a pipeline's stored answers, with the size of their requests, which estimates are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import with_columns
from batch_assets.core.ledger.collected import last_collection
from batch_assets.core.ledger.estimates import AnsweredFile, answered_files
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.prices import undated
from batch_assets.core.requests.estimate import RecordedEstimate
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, digests_of_tails, pack
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail, params_of
from batch_assets.core.store.responses import RESPONSE_SCHEMA, open_responses, reading_responses

# The files that are looked through, those that are read, the row groups of each, and the answers that are enough.
_LISTED, _FILES, _GROUPS, _ENOUGH = 50, 3, 4, 400
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_COLUMNS = ["digest", "result_type", "response_model", "cost_usd", "live_cost_usd", *_INPUT]

IsWanted = Callable[[Digests], NDArray[np.bool_]]


@dataclass(frozen=True)
class OwnAnswers:
    """Answers of a pipeline. All arrays have the shape (n,).

    Attributes:
        digests: The digests of the requests: S16.
        models: The models that answered, without release dates: str.
        sizes: The bytes of the params: float64.
        input_tokens: The tokens of the prompt, cached ones included: float64.
        costs: The cost in picodollars; float64, NaN if it is unknown.
        live_costs: The cost as a live call; float64, NaN if it is unknown.
        is_own: Whether the request was built from this prompt, as far as that is on record: bool.
    """

    digests: Digests
    models: NDArray[np.str_]
    sizes: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    costs: NDArray[np.float64]
    live_costs: NDArray[np.float64]
    is_own: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sizes)

    def to_this_prompt(self, is_wanted: IsWanted) -> OwnAnswers:
        """Return those of this prompt whose cost is known.

        Args:
            is_wanted: Whether the rows that are built now want requests, which then are of this prompt.
        """
        return self._at((self.is_own | is_wanted(self.digests)) & ~np.isnan(self.costs))

    def of_model(self, model: str) -> OwnAnswers:
        """Return the answers of a model."""
        return self._at(self.models == undated(model))

    def _at(self, chosen: NDArray[np.bool_]) -> OwnAnswers:
        return OwnAnswers(
            self.digests[chosen],
            self.models[chosen],
            self.sizes[chosen],
            self.input_tokens[chosen],
            self.costs[chosen],
            self.live_costs[chosen],
            self.is_own[chosen],
        )

    @classmethod
    def joined(cls, parts: Sequence[OwnAnswers]) -> OwnAnswers:
        """Join those of several files."""
        if not parts:
            none = np.empty(0)
            return cls(pack([]), np.empty(0, str), none, none, none, none, np.empty(0, bool))
        return cls(
            np.concatenate([part.digests for part in parts]),
            np.concatenate([part.models for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.input_tokens for part in parts]),
            np.concatenate([part.costs for part in parts]),
            np.concatenate([part.live_costs for part in parts]),
            np.concatenate([part.is_own for part in parts]),
        )


@dataclass(frozen=True)
class _Kept:
    """The answers that were read last, for the other partitions of a run."""

    last: int
    answers: OwnAnswers


def own_answers(root: Root, pipeline: str, prompt: str) -> OwnAnswers:
    """Read some of the answers of a pipeline that were stored last, those to one prompt first.

    Those to follow-ups are left out.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        prompt: The digest of the prompt.
    """
    name = f"answers of {pipeline} to {prompt}"
    with root.ledger.read() as tx:
        last = last_collection(tx, pipeline)
        kept = root.kept.get(name)
        if isinstance(kept, _Kept) and kept.last == last:
            return kept.answers
        listed = answered_files(tx, pipeline, _LISTED) if last else []
    answers = _read(root, [(each, _prompt_of(each) == prompt) for each in listed])
    root.kept[name] = _Kept(last, answers)
    return answers


def _prompt_of(answered: AnsweredFile) -> str | None:
    recorded = RecordedEstimate.of(answered.estimate)
    return recorded.prompt if recorded is not None else None


def _read(root: Root, listed: list[tuple[AnsweredFile, bool]]) -> OwnAnswers:
    first = (each for each in sorted(listed, key=lambda each: not each[1]) if not _has_follow_ups(root, each[0]))
    best = list(islice(first, _FILES))
    before = accumulate((answered.file.requests for answered, _ in best), initial=0)
    chosen = [each for each, requests in zip(best, before, strict=False) if requests < _ENOUGH]
    return OwnAnswers.joined(root.storage.together([partial(_of_file, root, *each) for each in chosen]))


def _has_follow_ups(root: Root, answered: AnsweredFile) -> bool:
    """Whether a file has follow-ups. A plan counts first requests, and these have other prompts and answers."""
    return answered.file.attempt > 1 and StoredRequestFile.of(root.storage, answered.file).has_follow_ups()


def _of_file(root: Root, answered: AnsweredFile, is_own: bool) -> OwnAnswers:
    """Read the answers to some requests of a file; none if it cannot be read: whatever needs it reports that."""
    try:
        return _answers_to(root, answered, is_own)
    except (DamagedFileError, FileNotFoundError):
        return OwnAnswers.joined([])


def _answers_to(root: Root, answered: AnsweredFile, is_own: bool) -> OwnAnswers:
    """Read the answers to some requests of a file. Both files have the same order."""
    file, name = answered.file, ResponseName.of_batch(answered.batch_id)
    with (
        open_responses(root.storage, file.pipeline, name) as opened,
        reading_responses(root.storage, file.pipeline, name),
    ):
        groups, around = _spread([opened.metadata.row_group(at).num_rows for at in range(opened.num_row_groups)])
        read = opened.read_row_groups(groups, columns=_COLUMNS, use_threads=False)
    stored = with_columns(read, RESPONSE_SCHEMA, _COLUMNS)
    lines = StoredRequestFile.of(root.storage, file).some_lines(around)
    digests = digests_of_tails(map(own_tail, lines))
    wanted = pa.array([bytes(each).ljust(DIGEST_BYTES, b"\0") for each in digests], pa.binary(DIGEST_BYTES))
    place = pc.index_in(stored["digest"], wanted)
    has_answer = pc.equal(stored["result_type"], ResultType.SUCCEEDED.value)
    is_of_line = pc.and_(place.is_valid(), has_answer)
    found = stored.filter(is_of_line)
    positions = place.filter(is_of_line).combine_chunks().to_numpy(zero_copy_only=False)
    sizes = np.array([len(params_of(line)) for line in lines], np.float64)
    return OwnAnswers(
        digests[positions],
        np.array([undated(model or "") for model in found["response_model"].to_pylist()], str),
        sizes[positions],
        sum((_numbers(found, column, 0.0) for column in _INPUT), np.zeros(len(found))),
        _numbers(found, "cost_usd", np.nan) * PICODOLLARS,
        _numbers(found, "live_cost_usd", np.nan) * PICODOLLARS,
        np.full(len(found), is_own),
    )


def _spread(rows: list[int]) -> tuple[list[int], list[float]]:
    """Choose some row groups of a file.

    Args:
        rows: The rows of each row group.

    Returns:
        The numbers of the chosen ones, and where in the file the middle of each is, from 0 to 1.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_GROUPS, len(rows))).round().astype(int)).tolist()
    ends = np.cumsum(rows)
    return chosen, [float((ends[at] - rows[at] / 2) / max(1, ends[-1])) for at in chosen]


def _numbers(table: pa.Table, column: str, missing: float) -> NDArray[np.float64]:
    values: Iterator[float | None] = iter(table[column].to_pylist())
    return np.array([missing if value is None else value for value in values], np.float64)
