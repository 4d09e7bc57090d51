"""A sample of a pipeline's stored answers, with the size of their requests, which estimates are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import accumulate, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.follow_up_rules import FollowUpKind, FollowUpRules
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import with_columns
from batch_assets.core.ledger.collected import last_collection
from batch_assets.core.ledger.estimates import AnsweredFile, answered_files
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.prices import undated
from batch_assets.core.requests.chain_costs import ENDS, chains_after, has_follow_ups
from batch_assets.core.requests.estimate import RecordedEstimate
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_BYTES, Digests, digests_of_tails, pack
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail, params_of
from batch_assets.core.store.responses import RESPONSE_SCHEMA, digest_array, open_responses, reading_responses

# The files that are looked through, those that are read, the row groups of each, the windows of its request file
# in which lines are read, and the answers that are enough.
_LISTED, _FILES, _GROUPS, _WINDOWS, _ENOUGH = 50, 3, 4, 8, 400
# Files with fewer requests are read last: stubs, and retries of a few. And with fewer lines that are read, answers
# count without the size of their own requests.
_FEWEST_LINES = 20
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_COLUMNS = ["digest", "result_type", "cost_usd", "live_cost_usd", *ENDS, *_INPUT]

IsWanted = Callable[[Digests], NDArray[np.bool_]]


@dataclass(frozen=True)
class OwnAnswers:
    """Answers of a pipeline. All arrays have the shape (n,).

    Attributes:
        digests: The digests of the requests: S16.
        models: The models that answered, without release dates: str.
        sizes: The bytes of the params: float64.
        input_tokens: The tokens of the prompt, cached ones included: float64.
        written_tokens: Those that were written to the prompt cache: float64.
        read_tokens: Those that were read from it: float64.
        costs: The cost in picodollars; float64, NaN if it is unknown.
        live_costs: The cost as a live call; float64, NaN if it is unknown.
        is_own: Whether the request was built from this prompt, as far as that is on record: bool.
        from_cache: Whether requests of its file have read from the cache what a stub had written: bool.
        in_vain: Whether its file waited for a stub and none of its requests read from the cache: bool.
        later_costs: The cost of the follow-ups in picodollars, 0 without any; float64, NaN if it is unknown.
        is_whole: Whether no chain of the answer's file has follow-ups still to come: bool.
    """

    digests: Digests
    models: NDArray[np.str_]
    sizes: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    written_tokens: NDArray[np.float64]
    read_tokens: NDArray[np.float64]
    costs: NDArray[np.float64]
    live_costs: NDArray[np.float64]
    is_own: NDArray[np.bool_]
    from_cache: NDArray[np.bool_]
    in_vain: NDArray[np.bool_]
    later_costs: NDArray[np.float64]
    is_whole: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sizes)

    def to_this_prompt(self, is_wanted: IsWanted) -> OwnAnswers:
        """Return those of this prompt whose cost is known.

        Args:
            is_wanted: Whether the rows that are built now want requests, which then are of this prompt.
        """
        return self.at((self.is_own | is_wanted(self.digests)) & ~np.isnan(self.costs))

    def with_whole_chains(self) -> OwnAnswers:
        """Return those whose follow-ups are all known, with what these cost."""
        return self.at(self.is_whole & ~np.isnan(self.later_costs))

    def of_model(self, model: str) -> OwnAnswers:
        """Return the answers of a model."""
        return self.at(self.models == undated(model))

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> OwnAnswers:
        """Return some of the answers, by a mask or by their positions."""
        return OwnAnswers(*(getattr(self, each.name)[chosen] for each in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[OwnAnswers]) -> OwnAnswers:
        """Join those of several files."""
        if not parts:
            none, some = np.empty(0), np.empty(0, bool)
            numbers = none, none, none, none, none, none
            return cls(pack([]), np.empty(0, str), *numbers, some, some, some, none, some)
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))


@dataclass(frozen=True)
class _Kept:
    """The answers that were read last, for the other partitions of a run."""

    last: int
    answers: OwnAnswers


def own_answers(root: Root, pipeline: Pipeline) -> OwnAnswers:
    """Read some of the answers of a pipeline that were stored last, those to its prompt first.

    Answers to follow-ups count with those that they follow, if the pipeline has answers followed.

    Args:
        root: The root.
        pipeline: The pipeline.
    """
    prompt, rules = pipeline.prompt_digest, pipeline.follow_ups
    name = f"answers of {pipeline.name} to {prompt} by {rules.as_text() if rules is not None else None}"
    with root.ledger.read() as tx:
        last = last_collection(tx, pipeline.name)
        kept = root.kept.get(name)
        if isinstance(kept, _Kept) and kept.last == last:
            return kept.answers
        listed = answered_files(tx, pipeline.name, _LISTED) if last else []
    answers = _read(root, [(each, _prompt_of(each) == prompt) for each in listed], rules)
    root.kept[name] = _Kept(last, answers)
    return answers


def _prompt_of(answered: AnsweredFile) -> str | None:
    recorded = RecordedEstimate.of(answered.estimate)
    return recorded.prompt if recorded is not None else None


def _read(root: Root, listed: list[tuple[AnsweredFile, bool]], rules: FollowUpRules | None) -> OwnAnswers:
    by_use = sorted(listed, key=lambda each: (not each[1], each[0].file.requests < _FEWEST_LINES))
    first = (each for each in by_use if not has_follow_ups(root, each[0]))
    best = list(islice(first, _FILES))
    before = accumulate((answered.file.requests for answered, _ in best), initial=0)
    chosen = [each for each, requests in zip(best, before, strict=False) if requests < _ENOUGH]
    if rules is None:
        return OwnAnswers.joined(root.storage.together([partial(_of_file, root, *each, None) for each in chosen]))
    age = {answered.batch_id: number for number, (answered, _) in enumerate(listed)}
    chosen.sort(key=lambda each: age[each[0].batch_id])
    parts = root.storage.together([partial(_of_file, root, *each, rules) for each in chosen])
    first_answers = OwnAnswers.joined(parts)
    # Of a request that was refreshed, the follow-ups are those of its newest answer.
    _, newest = np.unique(first_answers.digests, return_index=True)
    ages = np.array([age[answered.batch_id] for answered, _ in chosen], np.int64)
    of_file = np.repeat(ages, np.array([len(part) for part in parts], np.int64))
    answers = first_answers.at(newest)
    chains = chains_after(root, [answered for answered, _ in listed], answers.digests, of_file[newest], rules)
    is_open = np.where(chains.has_any, chains.is_open, ~answers.is_whole)
    is_whole = ~np.isin(of_file[newest], of_file[newest][is_open])
    return replace(answers, later_costs=chains.costs, is_whole=is_whole)


def _of_file(root: Root, answered: AnsweredFile, is_own: bool, rules: FollowUpRules | None) -> OwnAnswers:
    """Read the answers to some requests of a file; none if it cannot be read: whatever needs it reports that."""
    try:
        return _answers_to(root, answered, is_own, rules)
    except (DamagedFileError, FileNotFoundError):
        return OwnAnswers.joined([])


def _answers_to(root: Root, answered: AnsweredFile, is_own: bool, rules: FollowUpRules | None) -> OwnAnswers:
    """Read the answers to some requests of a file. Both files have the same order."""
    file, name = answered.file, ResponseName.of_batch(answered.batch_id)
    with (
        open_responses(root.storage, file.pipeline, name) as opened,
        reading_responses(root.storage, file.pipeline, name),
    ):
        groups, around = _spread([opened.metadata.row_group(at).num_rows for at in range(opened.num_row_groups)])
        columns_read = opened.read_row_groups(groups, columns=_COLUMNS, use_threads=False)
    stored = with_columns(columns_read, RESPONSE_SCHEMA, _COLUMNS)
    stored = stored.filter(pc.equal(stored["result_type"], ResultType.SUCCEEDED.value))
    lines = StoredRequestFile.of(root.storage, file).some_lines(around, _ENOUGH, file.requests)
    digests = digests_of_tails(map(own_tail, lines))
    wanted = pa.array([bytes(each).ljust(DIGEST_BYTES, b"\0") for each in digests], pa.binary(DIGEST_BYTES))
    place = pc.index_in(stored["digest"], wanted).combine_chunks()
    found = stored.filter(place.is_valid())
    positions = place.drop_null().to_numpy(zero_copy_only=False)
    sizes = np.array([len(params_of(line)) for line in lines], np.float64)[positions]
    if len(found) < min(_FEWEST_LINES, len(stored)):  # the requests are so long that few were read
        found = stored.take(pa.array(np.arange(0, len(stored), max(1, len(stored) // _ENOUGH))))
        sizes = np.full(len(found), file.bytes / file.requests)
    columns = {name: found[name] for name in ENDS}
    goes_on = np.zeros(len(found), bool)
    if rules is not None:
        none = np.zeros((len(found), len(FollowUpKind)), np.int8)
        goes_on = rules.may_go_on(columns, none, root.settings.prices.max_output)
    tokens = {column: _numbers(found, column, 0.0) for column in _INPUT}
    written, read = tokens["cache_creation_input_tokens"], tokens["cache_read_input_tokens"]
    has_waited, has_read = file.stub not in (None, file.id), bool(read.any())
    return OwnAnswers(
        digest_array(found["digest"]),
        np.array([undated(model or "") for model in found["response_model"].to_pylist()], str),
        sizes,
        tokens["input_tokens"] + written + read,
        written,
        read,
        _numbers(found, "cost_usd", np.nan) * PICODOLLARS,
        _numbers(found, "live_cost_usd", np.nan) * PICODOLLARS,
        np.full(len(found), is_own),
        np.full(len(found), has_waited and has_read),
        np.full(len(found), has_waited and not has_read and file.attempt == 1),  # retries may be sent much later
        np.zeros(len(found)),
        ~goes_on,
    )


def _spread(rows: list[int]) -> tuple[list[int], list[float]]:
    """Choose some row groups of a file.

    Args:
        rows: The rows of each row group.

    Returns:
        The numbers of the chosen ones, and where in the file some places of each are, from 0 to 1.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_GROUPS, len(rows))).round().astype(int)).tolist()
    ends, each = np.cumsum(rows), _WINDOWS // max(1, len(chosen))
    left = 1 - (np.arange(each) + 0.5) / each
    places = [(ends[at] - rows[at] * left) / max(1, ends[-1]) for at in chosen]
    return chosen, [float(place) for of_group in places for place in of_group]


def _numbers(table: pa.Table, column: str, missing: float) -> NDArray[np.float64]:
    values: Iterator[float | None] = iter(table[column].to_pylist())
    return np.array([missing if value is None else value for value in values], np.float64)
