"""Judge a pilot: its answers decide whether the other requests of its prompt are sent, or a user decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch_assets.core.answers.answers import Answers
from batch_assets.core.answers.follow_up_rules import FollowUpKind, FollowUpRules
from batch_assets.core.answers.ok_rows import ok_rows
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger import pilots, submissions
from batch_assets.core.ledger.pilots import Pilot, PilotState, PilotTerms
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import FileState, PilotVerdict
from batch_assets.core.prices.money import PICODOLLARS, picodollars_in, usd
from batch_assets.core.prices.projection import project
from batch_assets.core.prices.range import Range
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests, digests_of_tails
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.manifest import Manifest
from batch_assets.core.store.pipeline_outcomes import PipelineOutcomes, open_answers
from batch_assets.core.store.refreshes import refreshes_of, untried_of
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import own_tail
from batch_assets.core.store.response_reader import ResponseReader
from batch_assets.core.text import count, dollars, percent

# A text names this many failures and shows this many answers, of which it shows this many characters.
_FAILURES, _ANSWERS, _CHARACTERS = 5, 5, 300


@dataclass(frozen=True)
class PilotReport:
    """What became of a pilot that was judged.

    Attributes:
        verdict: The verdict.
        why: The reason for it, for users. It names failed requests, and has no answers.
        requests: The number of requests that waited for it.
        rest: What these would cost, as text; "" if that is not known, or there are none.
        sample: Some of the pilot's answers, each as its custom_id and what came back.
    """

    verdict: PilotVerdict
    why: str
    requests: int
    rest: str
    sample: list[tuple[str, str]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The report as lines of text, without the sample."""
        waiting = count(self.requests, "request")
        ends = {
            PilotVerdict.GO: f"{waiting} may be sent now",
            PilotVerdict.ASK: f"{waiting} are held until a user approves them",
        }
        return [
            f"{self.why}. {ends[self.verdict]}",
            *([f"Estimated cost of the rest: {self.rest}"] if self.rest else []),
        ]


def judge_pilots(root: Root, waiting: Sequence[RequestFile], answers: Answers | None) -> list[PilotReport]:
    """Judge the pilots that some request files wait for, as far as they can be judged now.

    Repeating it changes nothing. A pilot whose failed requests are sent again is judged after that.

    Args:
        root: The root.
        waiting: Request files, of which those that wait for a pilot count.
        answers: How the pipeline's own code makes columns of answers; `None` to follow the manifest.
    """
    held = [file for file in waiting if file.is_held_for_pilot]
    if not held:
        return []
    with root.ledger.read() as tx:
        states = {state.pilot.prompt: state for state in pilots.waited_for(tx, held).values()}
    reports = [_judged(root, state, answers) for state in states.values() if state.is_due]
    return [report for report in reports if report is not None]


def _judged(root: Root, state: PilotState, answers: Answers | None) -> PilotReport | None:
    pilot = state.pilot
    if pilot.verdict is not None:  # the files were registered after it
        return _decide(root, pilot, pilot.verdict, pilot.why or "", None)
    try:
        found = _Answered.read(root, state, answers)
    except (FileNotFoundError, DamagedFileError) as error:
        return _decide(root, pilot, PilotVerdict.ASK, f"The answers of the pilot cannot be judged: {error}", None)
    if found.is_unfinished:
        with root.ledger.write(pilot.pipeline) as tx:
            pilots.looked(tx, state)
        return None
    problems = found.problems(pilot.terms)
    if problems:
        return _decide(
            root, pilot, PilotVerdict.ASK, f"The pilot is not as expected: {'; '.join(problems)}", found
        )
    if pilot.terms.asks:
        why = f"The pilot is as expected, {found.summary}, and `pilot` asks a user in any case"
        return _decide(root, pilot, PilotVerdict.ASK, why, found)
    return _decide(root, pilot, PilotVerdict.GO, f"The pilot is as expected: {found.summary}", found)


def _decide(
    root: Root, pilot: Pilot, verdict: PilotVerdict, why: str, found: _Answered | None
) -> PilotReport | None:
    with root.ledger.write(pilot.pipeline) as tx:
        waited = pilots.judge(tx, pilot, verdict, why)
    if not waited:
        return None
    requests, size = sum(file.requests for file in waited), sum(file.bytes for file in waited)
    rest = found.rest_as_text(requests, size) if found is not None else ""
    sample = found.sample() if found is not None else []
    return PilotReport(verdict, why, requests, rest, sample)


@dataclass(frozen=True)
class _Answered:
    """The requests of a pilot with what came back for them.

    Attributes:
        is_unfinished: Whether some of them are sent again automatically.
        table: The responses in force, with the columns of a response file.
        sizes: The bytes of the lines of these requests; float64, shape (n,).
        failed: Whether each of them failed; bool, shape (n,).
        invalid: Whether each of them has an answer that is refused, cut off, or does not match; bool, shape (n,).
            A turn that goes on is not invalid.
        problems_by_row: Why each request failed or its answer is invalid; for others perhaps the stop reason.
        follow_ups: Which answers are followed by another request; `None` if none are.
    """

    is_unfinished: bool
    table: pa.Table
    sizes: NDArray[np.float64]
    failed: NDArray[np.bool_]
    invalid: NDArray[np.bool_]
    problems_by_row: list[str]
    follow_ups: FollowUpRules | None

    @classmethod
    def read(cls, root: Root, state: PilotState, answers: Answers | None) -> _Answered:
        """Read them.

        Raises:
            FileNotFoundError: When a request file is lost.
            DamagedFileError: When a file cannot be read.
        """
        pilot = state.pilot
        with root.ledger.read() as tx:
            submission = submissions.by_id(tx, pilot.submission_id)
            refreshes, untried = refreshes_of(tx, pilot.pipeline), untried_of(tx, submission)
        digests, sizes = _requests_of(root, state.files)
        stored = open_answers(root, pilot.pipeline, len(digests))
        outcomes = PipelineOutcomes(stored, refreshes, submission.fresh_after, untried).for_digests(digests)
        fates = request_fates(
            outcomes.is_known, outcomes.kind, outcomes.attempt, max_attempts=submission.attempts_allowed
        )
        known = outcomes.is_known
        with ResponseReader(stored.files) as reader:
            table = reader.take(outcomes.row[known])
        how = answers
        if how is None:
            manifest = Manifest.read(root.storage, pilot.pipeline, submission.partition, submission.id)
            how = manifest.answers
        columns: dict[str, Any] = {name: table[name] for name in table.column_names}
        how.add(columns)
        failed = fates[known] != RequestFate.ANSWERED.value
        invalid = ~failed & ~np.array(ok_rows(columns).to_pylist(), bool)
        invalid &= ~_go_on(root, submission.follow_up_rules, columns, table["custom_id"])
        reasons = [
            text or kind or stop or ""
            for text, kind, stop in zip(
                columns["error_message"].to_pylist(),
                columns["error_type"].to_pylist(),
                table["stop_reason"].to_pylist(),
                strict=True,
            )
        ]
        is_retried = bool((fates == RequestFate.RETRY.value).any())
        return cls(is_retried, table, sizes[known], failed, invalid, reasons, submission.follow_up_rules)

    @property
    def cost(self) -> int | None:
        """What the answers cost in picodollars; `None` if that is not known."""
        costs = self._costs
        return picodollars_in(costs) if not costs.null_count else None

    @property
    def _costs(self) -> pa.ChunkedArray:
        has_answer = pc.equal(self.table["result_type"], ResultType.SUCCEEDED)
        return self.table["cost_usd"].filter(has_answer)

    @property
    def summary(self) -> str:
        """What came back, as text."""
        cost = f" for {dollars(usd(self.cost))}" if self.cost is not None else ""
        failed = f", {int(self.failed.sum()):,} failed" if self.failed.any() else ""
        invalid = f", {int(self.invalid.sum()):,} invalid" if self.invalid.any() else ""
        return f"{count(int((~self.failed).sum()), 'answer')}{cost}{failed}{invalid}"

    def problems(self, terms: PilotTerms) -> list[str]:
        """Return why a user has to decide, as texts; an empty list if the rest may go."""
        requests, failed, invalid = len(self.failed), int(self.failed.sum()), int(self.invalid.sum())
        answered = requests - failed
        if not requests:
            return ["none of its answers is stored"]
        texts = []
        if failed > terms.max_failed * requests:
            texts.append(
                f"{failed:,} of {count(requests, 'request')} failed, and max_failed is {percent(terms.max_failed)}"
                f" ({self._named(self.failed)})"
            )
        if invalid > terms.max_invalid * answered:
            texts.append(
                f"{invalid:,} of {count(answered, 'answer')} are invalid, and max_invalid is "
                f"{percent(terms.max_invalid)} ({self._named(self.invalid)})"
            )
        if self.cost is not None and terms.low is not None and terms.high is not None and answered:
            least = round(terms.low * answered / requests)
            if not least <= self.cost <= terms.high:
                planned = Range(least, None, terms.high).as_text
                texts.append(f"it cost {dollars(usd(self.cost))}, and {planned} was estimated")
        return texts

    def _named(self, chosen: NDArray[np.bool_]) -> str:
        ids = self.table["custom_id"].to_pylist()
        rows = np.flatnonzero(chosen).tolist()
        named = [f"{ids[row]}: {self.problems_by_row[row]}" for row in rows[:_FAILURES]]
        more = f"; and {len(rows) - _FAILURES:,} more" if len(rows) > _FAILURES else ""
        return "; ".join(named) + more

    def rest_as_text(self, requests: int, size: int) -> str:
        """Return what other requests would cost, for users; "" if too few costs are known.

        Args:
            requests: Their number.
            size: The bytes of their files.
        """
        has_answer = pc.equal(self.table["result_type"], ResultType.SUCCEEDED).to_numpy()
        costs = self._costs
        is_known = costs.is_valid().to_numpy()
        amounts = pc.fill_null(costs, 0.0).to_numpy()[is_known] * PICODOLLARS
        rest = project(amounts, self.sizes[has_answer][is_known], requests, size) if requests else None
        if rest is None:
            return ""
        excluded = [self.follow_ups.not_in_estimates] if self.follow_ups is not None else []
        return "; ".join([rest.as_text, *excluded])

    def sample(self) -> list[tuple[str, str]]:
        """Return some answers and what failed, each as the custom_id and a text."""
        ids, texts = self.table["custom_id"].to_pylist(), self.table["response_text"].to_pylist()
        bad = self.failed | self.invalid
        rows = [*np.flatnonzero(bad)[:_FAILURES].tolist(), *np.flatnonzero(~bad)[:_ANSWERS].tolist()]
        return [
            (
                ids[row] or "",
                ": ".join(filter(None, [self.problems_by_row[row], (texts[row] or "")[:_CHARACTERS]])),
            )
            for row in rows
        ]


def _go_on(
    root: Root, rules: FollowUpRules | None, columns: Mapping[str, Any], custom_ids: pa.ChunkedArray
) -> NDArray[np.bool_]:
    """Return which answers only pause, or wait for the results of tools: bool, shape (n,)."""
    if rules is None:
        return np.zeros(len(custom_ids), bool)
    own = np.zeros(len(custom_ids), bool)  # imported answers are no answers of a pilot
    kinds = rules.kinds(columns, counts_in(custom_ids), root.settings.prices.max_output, own)
    goes_on: NDArray[np.bool_] = kinds == FollowUpKind.PAUSED.value
    return goes_on


def _requests_of(root: Root, of_pilot: Sequence[RequestFile]) -> tuple[Digests, NDArray[np.float64]]:
    """Return the digests of a pilot's requests (S16) and the bytes of their lines (float64), shape (n,) each."""
    collected = [file for file in of_pilot if file.state is FileState.COLLECTED]
    lines = [line for file in collected for line in StoredRequestFile.of(root.storage, file).lines()]
    sizes = np.array([len(line) for line in lines], np.float64)
    return digests_of_tails([own_tail(line) for line in lines]), sizes
