"""Judge a pilot: its answers decide whether the other requests of its prompt are sent, or a user decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.core.answers.answers import Answers
from batch_assets.core.batches.pilot_answers import PilotAnswers
from batch_assets.core.errors import DamagedFileError, MissingFileError
from batch_assets.core.ledger import pilots
from batch_assets.core.ledger.pilots import Pilot, PilotState
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import PilotVerdict
from batch_assets.core.root import Root
from batch_assets.core.text import count


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
        is_go = self.verdict is PilotVerdict.GO
        end = f"{waiting} may be sent now" if is_go else f"{waiting} are held until a user approves them"
        return [
            f"{self.why}. {end}",
            *([f"Estimated cost of the rest: {self.rest}"] if self.rest else []),
        ]


def judge_pilots(root: Root, waiting: Sequence[RequestFile], answers: Answers | None) -> list[PilotReport]:
    """Judge the pilots that some request files wait for, as far as they can be judged now.

    Repeating it changes nothing. A pilot whose requests are sent again or followed
    by others is judged after that.

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
        found = PilotAnswers.read(root, state, answers)
    except (FileNotFoundError, MissingFileError, DamagedFileError) as error:
        return _decide(root, pilot, PilotVerdict.ASK, f"The answers of the pilot cannot be judged: {error}", None)
    if found.is_unfinished:
        with root.ledger.write(pilot.pipeline) as tx:
            pilots.looked(tx, state)
        return None
    if found.is_canceled:
        return _decide(root, pilot, PilotVerdict.CANCELED, "The pilot was canceled", None)
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
    root: Root, pilot: Pilot, verdict: PilotVerdict, why: str, found: PilotAnswers | None
) -> PilotReport | None:
    with root.ledger.write(pilot.pipeline) as tx:
        waited = pilots.judge(tx, pilot, verdict, why)
    if not waited:
        return None
    requests, size = sum(file.requests for file in waited), sum(file.bytes for file in waited)
    rest = found.rest_as_text(requests, size) if found is not None else ""
    sample = found.sample() if found is not None else []
    return PilotReport(verdict, why, requests, rest, sample)
