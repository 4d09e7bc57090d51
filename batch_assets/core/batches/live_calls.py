"""Make the live calls of one group, several at a time. No call is repeated unless the API has processed nothing.

Each call is noted in the journal before it is made, and the lease is checked in between. So no two processes make
the same call: whoever takes over finds the note, or the first process finds its lease gone.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.api.errors import ApiError, NotFoundError, NotSentError, RefusedError, UnknownOutcomeError
from batch_assets.core.batches.submit_report import LiveCallCounts
from batch_assets.core.errors import ErrorType
from batch_assets.core.ledger import Lease
from batch_assets.core.root import Root
from batch_assets.core.store.live_journal import LiveJournal
from batch_assets.core.store.request_lines import custom_id_of, params_of

# The wait when the API asks to wait without a time. It doubles with each refusal in a row.
_FIRST_WAIT = 1.0
# A longer wait is left to a later run.
_LONGEST_WAIT = 60.0
# Without an answer for so many calls in a row, no further call is made for a while: each may be paid in vain.
_LOST_IN_A_ROW = 3
_PAUSE_SECONDS = 300.0
_STOPPED_SECONDS = 3600.0
# The SDKs do not send a request for more tokens in one piece: at their 128,000 tokens an hour, the answer may take
# longer than the 600 s that a connection without a byte lasts, and would be paid for in vain.
LONGEST_ANSWER = 600 * 128_000 // 3600


@dataclass(frozen=True)
class Pause:
    """Why no further live call is made for now.

    Attributes:
        seconds: For how long.
        why: The reason, for users.
    """

    seconds: float
    why: str


@dataclass
class Losses:
    """The lost replies of a run.

    Attributes:
        in_a_row: The number since the last call with another outcome, over all groups.
    """

    in_a_row: int = 0


class LiveCalls:
    """The calls of one group.

    Args:
        root: The root.
        journal: Where they are noted.
        lines: The lines of the request file, one for each call.
        headers: The headers of the requests.
        lease: The lease on the pipeline's live calls.
        until: No call begins after this time of the monotonic clock.
        losses: The lost replies of the run.
        counts: The calls are added to these.

    Attributes:
        pause: Why calls were left out; `None` if none were, or the time was over.
    """

    def __init__(
        self,
        root: Root,
        journal: LiveJournal,
        lines: Sequence[bytes],
        headers: Mapping[str, str],
        lease: Lease,
        until: float,
        losses: Losses,
        counts: LiveCallCounts,
    ) -> None:
        self._root, self._journal, self._lines, self._headers = root, journal, lines, headers
        self._lease, self._until, self._losses, self._counts = lease, until, losses, counts
        self._changing, self._over = threading.Lock(), threading.Event()
        self._next, self._resume_at = 0, 0.0
        self._waits_in_a_row = 0
        self._failure: BaseException | None = None
        self.pause: Pause | None = None

    def run(self, at_once: int) -> None:
        """Make the calls, and wait for all answers.

        Args:
            at_once: The most calls at a time.

        Raises:
            LeaseLostError: When another process has taken over.
            StorageError: When a call or an answer cannot be noted.
        """
        workers = [
            threading.Thread(target=self._work, name=f"live call {number}", daemon=True)
            for number in range(min(at_once, len(self._lines)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while (number := self._take()) is not None:
                while not self._ask(number):
                    if not self._wait():
                        return
        except BaseException as error:
            with self._changing:
                self._failure = self._failure or error
            self._over.set()

    def _take(self) -> int | None:
        """Return the number of the next call; `None` if there is none, or no more may be made."""
        if not self._wait():
            return None
        with self._changing:
            if self._over.is_set() or self._next >= len(self._lines):
                return None
            self._next += 1
            return self._next - 1

    def _wait(self) -> bool:
        """Wait as long as the API asked to. Return whether a call may be made then."""
        while not self._over.is_set() and time.monotonic() < self._until:
            left = self._resume_at - time.monotonic()
            if left <= 0:
                return True
            self._over.wait(min(left, max(0.0, self._until - time.monotonic())))
        return False

    def _ask(self, number: int) -> bool:
        """Make a call, and note its answer. Return False if it was not processed, so that it may be made again."""
        line = self._lines[number]
        self._lease.check()
        self._journal.note_call(number)
        self._lease.check()  # after the note: a process that was frozen before it makes no call
        try:
            message = self._root.api.message(params_of(line), self._headers)
        except ApiError as error:
            return self._failed(number, error)
        self._journal.note_answer(number, _result_line(line, ResultType.SUCCEEDED, b'"message":' + message))
        with self._changing:
            self._counts.answered += 1
            self._waits_in_a_row = self._losses.in_a_row = 0
        return True

    def _failed(self, number: int, error: ApiError) -> bool:
        """Note what became of a call without an answer. Return False if nothing of it was processed."""
        if isinstance(error, UnknownOutcomeError) and not error.is_overloaded:
            self._note_error(number, ErrorType.LIVE_CALL_LOST, f"the reply to the live call was lost: {error}")
            with self._changing:
                self._counts.lost += 1
                self._losses.in_a_row += 1
                if self._losses.in_a_row >= _LOST_IN_A_ROW:
                    self._stop(Pause(_PAUSE_SECONDS, f"{self._losses.in_a_row} live calls got no answer: {error}"))
            return True
        if isinstance(error, NotFoundError) or (
            isinstance(error, RefusedError) and not error.stop and not error.waits
        ):
            kind = error.type if isinstance(error, RefusedError) else "not_found_error"
            self._note_error(number, kind or "invalid_request_error", str(error))
            with self._changing:
                self._counts.refused += 1
                self._waits_in_a_row = self._losses.in_a_row = 0
            return True
        self._journal.take_back(number)
        with self._changing:
            self._put_off(error)
        return False

    def _put_off(self, error: ApiError) -> None:
        """Make all calls wait, because the API processes none now."""
        if isinstance(error, RefusedError) and error.stop:
            self._stop(Pause(_STOPPED_SECONDS, str(error)))
        elif isinstance(error, NotSentError):
            self._stop(Pause(_LONGEST_WAIT, str(error)))
        else:
            asked = error.retry_after if isinstance(error, RefusedError | UnknownOutcomeError) else None
            seconds = asked if asked is not None else _FIRST_WAIT * 2**self._waits_in_a_row
            self._waits_in_a_row += 1
            if seconds > _LONGEST_WAIT:
                self._stop(Pause(seconds, str(error)))
            else:
                self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def _stop(self, pause: Pause) -> None:
        self.pause = self.pause or pause
        self._over.set()

    def _note_error(self, number: int, kind: str, text: str) -> None:
        error = {"type": "error", "error": {"type": str(kind), "message": text}, "request_id": None}
        line = _result_line(self._lines[number], ResultType.ERRORED, b'"error":' + json.dumps(error).encode())
        self._journal.note_answer(number, line)


def may_last_too_long(line: bytes) -> bool:
    """Whether a request of a request file may have an answer that a live call cannot wait for."""
    tokens = orjson.loads(params_of(line)).get("max_tokens")
    return isinstance(tokens, int) and tokens > LONGEST_ANSWER


def _result_line(line: bytes, kind: ResultType, content: bytes) -> bytes:
    """Return a line as those of a batch's results. A line end between the tokens of an answer becomes a space."""
    custom_id = (custom_id_of(line) or "").encode()
    content = content.replace(b"\n", b" ").replace(b"\r", b" ")
    return b'{"custom_id":"%b","result":{"type":"%b",%b}}\n' % (custom_id, kind.value.encode(), content)
