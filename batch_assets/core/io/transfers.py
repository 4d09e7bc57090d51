"""Several uploads or downloads at a time, in threads of their own. What comes of them is told in the caller's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from batch_assets.core.io.memory import share_memory

# A run that a signal ends waits as long for what is under way to be recorded.
_LAST_SECONDS = 5.0

Item = TypeVar("Item")
Progress = Callable[[int], None]


class BrokenOffError(Exception):
    """The run that a transfer belongs to is over."""


@dataclass
class _Said(Generic[Item]):
    """What a thread says: how far it is, or that it has ended."""

    number: int
    done: int | None = None
    error: BaseException | None = None
    instead: Iterable[Item] = ()


class Transfers(Generic[Item]):
    """Does a piece of work for each of some items, several at a time. One alone takes no thread.

    After a failure no further one begins; those under way come to their end, and the failure of the first item
    in order is raised. A process that ends does not wait for its threads: what they did then is as if it had been
    killed.

    Args:
        at_most: so many at a time.
        work: does one. It is given what to call now and then with how far it is, which raises when the work is to
            be broken off. It returns items that are to be done in the place of its own.
        before: called with each item before it begins, in the caller's thread.
        after: called with each item whose work is done, in the caller's thread; until then it is one of those that
            are under way.
        progress: called with the item and how far it is, in the caller's thread.
        apart: items that are equal in this are never under way together.
        breaks_off: a failure breaks off the others: to begin them anew costs nothing.
    """

    def __init__(
        self,
        at_most: int,
        work: Callable[[Item, Progress], Iterable[Item]],
        *,
        before: Callable[[Item], None] = lambda _: None,
        after: Callable[[Item], None] = lambda _: None,
        progress: Callable[[Item, int], None] = lambda *_: None,
        apart: Callable[[Item], Hashable] = id,
        breaks_off: bool = False,
    ) -> None:
        self._at_most, self._work, self._apart = at_most, work, apart
        self._before, self._after, self._progress = before, after, progress
        self._breaks_off = breaks_off
        self._left: list[tuple[int, Item]] = []
        self._done: list[tuple[int, Item]] = []
        self._under_way: dict[int, tuple[int, Item]] = {}
        self._begun = 0
        self._said: SimpleQueue[_Said[Item]] = SimpleQueue()
        self._over = threading.Event()
        self._failures: list[tuple[int, BaseException]] = []

    def run(self, items: Iterable[Item]) -> None:
        """Does the work for all items, in their order as far as that goes."""
        self._left = list(enumerate(items))
        share_memory()
        try:
            while True:
                if (chosen := self._next()) is not None:
                    self._begin(*chosen)
                elif self._done:
                    self._finish(*self._done.pop(0))
                elif self._under_way:
                    self._hear(self._said.get())
                else:
                    break
        except BaseException as error:
            self._let_end(error)
            raise
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]

    def _next(self) -> tuple[int, Item] | None:
        """What may begin now."""
        if self._failures or len(self._under_way) + len(self._done) >= self._at_most:
            return None
        busy = {self._apart(item) for _, item in self._under_way.values()}
        return next((one for one in self._left if self._apart(one[1]) not in busy), None)

    def _begin(self, place: int, item: Item) -> None:
        self._left.remove((place, item))
        self._before(item)
        self._begun += 1
        number, alone = self._begun, not self._under_way
        self._under_way[number] = place, item
        if not alone or self._next() is not None:
            try:
                threading.Thread(target=self._do, args=(number, item), name="transfer", daemon=True).start()
            except BaseException:  # a machine may allow no more: nobody is to wait for it
                del self._under_way[number]
                raise
            return
        del self._under_way[number]
        self._put_first(place, self._work(item, lambda done: self._progress(item, done)))
        self._after(item)

    def _do(self, number: int, item: Item) -> None:
        def progress(done: int) -> None:
            if self._over.is_set():
                raise BrokenOffError
            self._said.put(_Said(number, done=done))

        try:
            said = _Said(number, instead=self._work(item, progress))
        except BaseException as error:  # raised again in the caller's thread
            said = _Said(number, error=error)
        self._said.put(said)

    def _hear(self, said: _Said[Item]) -> None:
        place, item = self._under_way[said.number]
        if said.done is not None:
            self._progress(item, said.done)
            return
        del self._under_way[said.number]
        self._put_first(place, said.instead)
        if said.error is None:
            self._done.append((place, item))
        elif not isinstance(said.error, BrokenOffError):
            self._fail(place, said.error)

    def _finish(self, place: int, item: Item) -> None:
        try:
            self._after(item)
        except Exception as error:  # raised again when those under way have come to their end
            self._fail(place, error)

    def _fail(self, place: int, error: BaseException) -> None:
        self._failures.append((place, error))
        if self._breaks_off:
            self._over.set()

    def _put_first(self, place: int, items: Iterable[Item]) -> None:
        self._left[:0] = [(place, item) for item in items]

    def _let_end(self, error: BaseException) -> None:
        """Waits for what is under way: to its end, or when the run itself is ended only for a moment."""
        is_signal = not isinstance(error, Exception)
        if is_signal or self._breaks_off:
            self._over.set()
        end = time.monotonic() + _LAST_SECONDS
        while self._under_way:
            with suppress(Empty):
                said = self._said.get(timeout=max(end - time.monotonic(), 0.0) if is_signal else None)
                if said.done is None:
                    del self._under_way[said.number]
            if is_signal and time.monotonic() >= end:
                return
