"""Run several uploads or downloads at a time, each in its own thread. All callbacks run in the caller's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from batch_assets.core.io.memory import share_memory
from batch_assets.core.io.pace import BrokenOffError, GivenWayError, Pace

# When a signal ends the run, transfers in progress get this many seconds to stop.
_LAST_SECONDS = 5.0

Item = TypeVar("Item")
Progress = Callable[[int], None]


@dataclass
class _Event(Generic[Item]):
    """A report from a worker thread.

    Attributes:
        number: The number of the transfer.
        done: How far the work is; `None` if it has ended.
        error: The exception that ended the work; `None` if it succeeded.
        replacements: Items to do in place of the transfer's item.
    """

    number: int
    done: int | None = None
    error: BaseException | None = None
    replacements: Iterable[Item] = ()


class Transfers(Generic[Item]):
    """Does the same work for each of several items, several at a time. A single item is done without a thread.

    After a failure no further item is started. The items in progress are finished, then the failure of the first
    item in order is raised. The threads are daemons: when the process ends, they stop as if it had been killed.

    Args:
        at_most: The largest number of items in progress at a time.
        work: Does one item. Its second argument is a function that `work` calls now and then with how far it is,
            and that raises `BrokenOffError` when the work should stop. It returns the items to do in place of this
            one.
        after: Called with each item whose work is done, in the caller's thread. Until it is called, the item
            counts as in progress.
        progress: Called with an item and how far it is, in the caller's thread.
        apart: Items for which this returns equal values are never in progress at the same time.
        breaks_off: Whether a failure stops the other items, because starting them again costs nothing.
        pace: Says whether another item may begin; `None` if all may.

    Attributes:
        left: The items that were left because they could not end in time, after `run`.
    """

    def __init__(
        self,
        at_most: int,
        work: Callable[[Item, Progress], Iterable[Item]],
        *,
        after: Callable[[Item], None] = lambda _: None,
        progress: Callable[[Item, int], None] = lambda *_: None,
        apart: Callable[[Item], Hashable] = id,
        breaks_off: bool = False,
        pace: Pace[Item] | None = None,
    ) -> None:
        self._at_most, self._work, self._apart = at_most, work, apart
        self._after, self._progress = after, progress
        self._breaks_off = breaks_off
        self._pace: Pace[Item] = pace if pace is not None else Pace(None, lambda _: 0.0)
        self.left: list[Item] = []
        self._waiting: list[tuple[int, Item]] = []
        self._done: list[tuple[int, Item]] = []
        self._in_progress: dict[int, tuple[int, Item]] = {}
        self._begun = 0
        self._events: SimpleQueue[_Event[Item]] = SimpleQueue()
        self._over = threading.Event()
        self._given_way: set[int] = set()
        self._failures: list[tuple[int, BaseException]] = []

    def run(self, items: Iterable[Item]) -> None:
        """Do the work for all items. They start in order, except that items kept apart may wait."""
        self._waiting = list(enumerate(items))
        share_memory()
        try:
            while True:
                if (chosen := self._next()) is not None:
                    self._begin(*chosen)
                elif self._done:
                    self._finish(*self._done.pop(0))
                elif self._in_progress:
                    self._handle(self._events.get())
                else:
                    break
        except BaseException as error:
            self._wait_for_threads(error)
            raise
        self.left += [item for _, item in self._waiting]
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]

    def _next(self) -> tuple[int, Item] | None:
        """The position and item that may start now; `None` if none may."""
        if self._failures or len(self._in_progress) + len(self._done) >= self._at_most:
            return None
        items = [item for _, item in self._in_progress.values()]
        busy = {self._apart(item) for item in items}
        entry = next((entry for entry in self._waiting if self._apart(entry[1]) not in busy), None)
        return entry if entry is not None and self._pace.may_begin(entry[1], items) else None

    def _begin(self, position: int, item: Item) -> None:
        self._waiting.remove((position, item))
        self._begun += 1
        number, alone = self._begun, not self._in_progress
        self._in_progress[number] = position, item
        self._pace.begun(item)
        if not alone or (self._waiting and self._at_most > 1):
            try:
                threading.Thread(target=self._do, args=(number, item), name="transfer", daemon=True).start()
            except BaseException:  # the machine may allow no more threads; there is nothing to wait for then
                del self._in_progress[number]
                raise
            return
        del self._in_progress[number]
        try:
            self._put_first(position, self._work(item, lambda done: self._report_alone(item, done)))
        except GivenWayError:
            self._pace.ended(item)
            self.left.append(item)
            return
        self._pace.ended(item)
        self._after(item)

    def _report_alone(self, item: Item, done: int) -> None:
        self._report(item, done)
        if self._pace.gives_way(item):
            raise GivenWayError

    def _report(self, item: Item, done: int) -> None:
        self._pace.progress(item, done)
        self._progress(item, done)

    def _do(self, number: int, item: Item) -> None:
        def progress(done: int) -> None:
            if number in self._given_way:
                raise GivenWayError
            if self._over.is_set():
                raise BrokenOffError
            self._events.put(_Event(number, done=done))

        try:
            event = _Event(number, replacements=self._work(item, progress))
        except BaseException as error:  # raised again in the caller's thread
            event = _Event(number, error=error)
        self._events.put(event)

    def _handle(self, event: _Event[Item]) -> None:
        position, item = self._in_progress[event.number]
        if event.done is not None:
            self._report(item, event.done)
            if self._pace.gives_way(item):
                self._given_way.add(event.number)
            return
        del self._in_progress[event.number]
        self._pace.ended(item)
        self._put_first(position, event.replacements)
        if event.error is None:
            self._done.append((position, item))
        elif isinstance(event.error, GivenWayError):
            self.left.append(item)
        elif not isinstance(event.error, BrokenOffError):
            self._fail(position, event.error)

    def _finish(self, position: int, item: Item) -> None:
        try:
            self._after(item)
        except Exception as error:  # raised again once the items in progress are finished
            self._fail(position, error)

    def _fail(self, position: int, error: BaseException) -> None:
        self._failures.append((position, error))
        if self._breaks_off:
            self._over.set()

    def _put_first(self, position: int, items: Iterable[Item]) -> None:
        self._waiting[:0] = [(position, item) for item in items]

    def _wait_for_threads(self, error: BaseException) -> None:
        """Wait until the items in progress are finished; after a signal, only for `_LAST_SECONDS`."""
        is_signal = not isinstance(error, Exception)
        if is_signal or self._breaks_off:
            self._over.set()
        end = time.monotonic() + _LAST_SECONDS
        while self._in_progress:
            with suppress(Empty):
                event = self._events.get(timeout=max(end - time.monotonic(), 0.0) if is_signal else None)
                if event.done is None:
                    del self._in_progress[event.number]
            if is_signal and time.monotonic() >= end:
                return
