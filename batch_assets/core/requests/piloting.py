"""Whether a build takes a pilot, waits for one, or does without."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger import Transaction, pilots
from batch_assets.core.ledger.estimates import answers_on_record
from batch_assets.core.ledger.pilots import PilotState, PilotTerms
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import HoldReason, PilotVerdict
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.estimate import RecordedEstimate
from batch_assets.core.root import Root
from batch_assets.core.store.digests import Digests
from batch_assets.core.store.pilot_requests import is_canceled
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.text import count


class PilotNeed(Enum):
    """What a build does about a pilot."""

    NONE = "none"
    """Nothing: the pipeline takes no pilots, or there are enough answers to this prompt."""
    TAKE = "take"
    """It takes one."""
    WAIT = "wait"
    """Its prompt has one already."""


class PilotTurn(NamedTuple):
    """What a build does about a pilot, and about an earlier one.

    Attributes:
        need: What it does.
        canceled: The submission of the earlier pilot of its prompt that was canceled; `None` if none was.
        own: The digests of the pilot's requests that are not at the API, if it waits for one: S16, shape (n,).
            Those of them that the build sends again go on as the pilot's.
    """

    need: PilotNeed
    canceled: str | None = None
    own: Digests | None = None


def pilot_turn(
    root: Root, pipeline: Pipeline, set_aside: Collection[RequestFile], *, is_refresh: bool
) -> PilotTurn:
    """Decide it before requests are written.

    Args:
        root: The root.
        pipeline: The pipeline.
        set_aside: The files that the build replaces, perhaps those of a pilot.
        is_refresh: Whether it also sends requests that are answered or at the API.
    """
    config = pipeline.config.pilot
    if config is None:
        return PilotTurn(PilotNeed.NONE)
    prompt = pipeline.prompt_digest
    with root.ledger.read() as tx:
        last = pilots.of_prompt(tx, pipeline.name, prompt)
        state = current_pilot(tx, pipeline.name, prompt, set_aside)
        known = 0
        if state is None:
            known = answers_on_record(tx, pipeline.name, RecordedEstimate.begins(prompt), config.rows)
    if last is not None and (last.pilot.verdict is PilotVerdict.CANCELED or is_canceled(root, last)):
        return PilotTurn(PilotNeed.TAKE, last.pilot.submission_id)  # what is answered was not judged
    if state is not None and state.pilot.verdict is PilotVerdict.GO:
        return PilotTurn(PilotNeed.NONE)
    if state is not None:
        return PilotTurn(PilotNeed.WAIT, own=_sent_again(root, state, set_aside, is_refresh=is_refresh))
    return PilotTurn(PilotNeed.NONE if known >= config.rows else PilotNeed.TAKE)


def _sent_again(
    root: Root, state: PilotState, set_aside: Collection[RequestFile], *, is_refresh: bool
) -> Digests | None:
    """Return the digests of the requests of a pilot that a build may send again; `None` if there are none.

    Requests of a file that cannot be read are left out: whoever judges the pilot reports that.
    """
    if state.pilot.verdict is not None:
        return None
    replaced = {file.id for file in set_aside}
    known = []
    for file in state.files:
        if is_refresh or not file.state.in_flight or file.id in replaced:
            with suppress(FileNotFoundError, DamagedFileError):
                known.append(StoredRequestFile.of(root.storage, file).digests())
    return np.unique(np.concatenate(known)) if known else None


def current_pilot(
    tx: Transaction,
    pipeline: str,
    prompt: str,
    set_aside: Collection[RequestFile],
    canceled: Collection[str | None] = (),
) -> PilotState | None:
    """Return the pilot of a prompt; `None` if there is none, it was canceled, or not sent and is replaced.

    Args:
        tx: The transaction.
        pipeline: The name of the pipeline.
        prompt: The digest of the prompt.
        set_aside: The files that are replaced.
        canceled: The submissions of pilots that were canceled.
    """
    state = pilots.of_prompt(tx, pipeline, prompt)
    if state is None or state.pilot.verdict is PilotVerdict.CANCELED:
        return None
    if state.pilot.verdict is not None:
        return state
    if state.pilot.submission_id in canceled:
        return None
    replaced = {file.id for file in set_aside}
    is_alive = any(not file.state.let_go and file.id not in replaced for file in state.files)
    return state if is_alive else None


def pilot_terms(pipeline: Pipeline) -> PilotTerms | None:
    """Return by what a pilot of a pipeline is judged; `None` if it takes none."""
    config = pipeline.config
    if config.pilot is None:
        return None
    return PilotTerms(config.pilot.then == "ask", config.max_failed, config.max_invalid)


@dataclass(frozen=True)
class BuiltPilot:
    """What the build of a submission has done about a pilot.

    Attributes:
        turn: What it had to do.
        terms: By what a pilot is judged; `None` if the pipeline takes none.
        requests: The number of its requests in a pilot.
        range: What these would cost; `None` if that is not known.
    """

    turn: PilotTurn
    terms: PilotTerms | None
    requests: int
    range: Range | None


@dataclass(frozen=True)
class Piloting:
    """What submissions that are registered at once have to do with the pilot of their prompt.

    Attributes:
        file_ids: The ids of the pilot's files, if the submissions have a new pilot, or send requests of one again.
        terms: By what the pilot is judged whose requests they send again; `None` for a new one.
        low: See `PilotTerms`.
        high: See `PilotTerms`.
        hold: What holds their other files; `None` if nothing does.
        why: Why they are held, for users.
    """

    file_ids: tuple[str, ...] = ()
    terms: PilotTerms | None = None
    low: int | None = None
    high: int | None = None
    hold: HoldReason | None = None
    why: str = ""


NO_PILOT = Piloting()


def new_pilot(
    file_ids: Sequence[str], requests: int, ranges: Sequence[Range | None], *, is_cached: bool
) -> Piloting:
    """Return what follows from a new pilot.

    Args:
        file_ids: The ids of its files.
        requests: The number of its requests.
        ranges: What its requests were estimated to cost, in parts; `None` for a part whose cost is unknown.
        is_cached: Whether they may read or write the prompt cache, for almost nothing or twice the price.
    """
    known = [each for each in ranges if each is not None]
    is_known = len(known) == len(ranges)
    low, high = sum(each.low for each in known), sum(each.high for each in known)
    if is_cached:
        low, high = 0, 2 * high
    return Piloting(
        tuple(file_ids),
        None,
        low if is_known else None,
        high if is_known else None,
        HoldReason.PILOT,
        f"{pilots.WAITS}, {count(requests, 'random request')} that go first",
    )


def earlier_pilot(state: PilotState, file_ids: Sequence[str], set_aside: Collection[RequestFile]) -> Piloting:
    """Return what follows from a pilot that the prompt has already.

    Args:
        state: The pilot.
        file_ids: The ids of the files that have requests of it, which are sent again.
        set_aside: The files that are replaced.
    """
    if state.pilot.verdict is PilotVerdict.ASK:
        return Piloting(hold=HoldReason.CONFIRM, why=state.pilot.why or "")
    if state.pilot.verdict is not None:
        return NO_PILOT
    if not file_ids:
        return Piloting(hold=HoldReason.PILOT, why=pilots.WAITS)
    replaced, terms = {file.id for file in set_aside}, state.pilot.terms
    remaining = [file.id for file in state.files if not file.state.let_go and file.id not in replaced]
    return Piloting((*remaining, *file_ids), terms, terms.low, terms.high, HoldReason.PILOT, pilots.WAITS)
