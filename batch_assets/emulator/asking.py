"""Asks a server, or the code of a test, for the answers to accepted batches, in the background.

An answer is stored as soon as it is there. After a restart, only the requests without one are sent. Requests of a
batch that is canceled or expired are not sent any more, and an answer that comes too late is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from batch_assets.emulator.answers import whole_message
from batch_assets.emulator.batches import progress_of
from batch_assets.emulator.outcomes import SUCCEEDED
from batch_assets.emulator.params import Refusal
from batch_assets.emulator.records import BatchRecord
from batch_assets.emulator.results import errored, parse_betas, result_of
from batch_assets.emulator.state import Store
from batch_assets.emulator.wire import HttpError, derived_id, new_id


class Source(Protocol):
    """What answers requests. Its methods belong to one event loop.

    Attributes:
        concurrency: How many requests it is asked at a time.
    """

    concurrency: int

    async def answer(self, params: Mapping[str, Any], custom_id: str | None) -> dict[str, Any]:
        """Answer a request.

        Args:
            params: The params of the request.
            custom_id: Its custom_id; `None` for a live call.

        Returns:
            `content`, `stop_reason`, `stop_sequence` and `usage` of the message.

        Raises:
            HttpError: When there is no answer.
        """

    async def close(self) -> None:
        """Release what it holds."""


class Asking:
    """Asks for the answers to the requests of batches, in the order of the batches.

    Args:
        store: The stored batches.
        source: What answers.
        now: Returns the current instant, in microseconds.
    """

    def __init__(self, store: Store, source: Source, now: Callable[[], int]) -> None:
        self._store, self._source, self._now = store, source, now
        self._batches: asyncio.Queue[str] = asyncio.Queue()
        self._requests: asyncio.Queue[tuple[BatchRecord, int, bytes]] = asyncio.Queue(maxsize=1)

    def begin(self, record: BatchRecord) -> None:
        """Queue a batch that was accepted."""
        self._batches.put_nowait(record.id)

    async def run(self) -> None:
        """Ask until the task is canceled, first for what an earlier process has not asked."""
        for record in self._store.unanswered():
            self.begin(record)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_batches())
                for _ in range(self._source.concurrency):
                    group.create_task(self._ask())
        finally:
            await self._source.close()

    async def live_message(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for the answer to a live call, and make the message.

        Args:
            params: The params of the request.

        Raises:
            HttpError: As `Source.answer`.
        """
        return whole_message(params, new_id("msg"), await self._source.answer(params, None), "standard")

    async def _read_batches(self) -> None:
        while True:
            record = self._store.accepted(await self._batches.get())
            assert record is not None
            answered = self._store.answered(record.id)
            missing = [at for at in range(record.requests) if at not in answered]
            for at, raw in self._store.read_requests(record.id, missing):
                if not self._is_open(record.id):
                    break
                await self._requests.put((record, at, raw))

    async def _ask(self) -> None:
        while True:
            record, at, raw = await self._requests.get()
            if not self._is_open(record.id):
                continue
            result = await self._result(record, at, orjson.loads(raw))
            if self._is_open(record.id):
                self._store.note_answer(record.id, at, result["type"], orjson.dumps(result), self._now())

    def _is_open(self, batch_id: str) -> bool:
        record = self._store.accepted(batch_id)
        assert record is not None
        return record.cancel_at is None and progress_of(record, self._now()).ended_at is None

    async def _result(self, record: BatchRecord, at: int, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make the `result` of a request. One that is invalid, or that a fault affects, is not asked."""
        code = self._store.outcomes(record.id)[at]
        if code != SUCCEEDED:
            return result_of(request, code, record, parse_betas(record.betas), 0)
        params, custom_id = request["params"], request["custom_id"]
        try:
            answer = await self._source.answer(params, custom_id)
        except HttpError as error:
            request_id = derived_id("workerreq", record.id, custom_id)
            return errored(Refusal(error.type, error.message), request_id)
        message_id = derived_id("msg", record.id, custom_id)
        return {"type": "succeeded", "message": whole_message(params, message_id, answer, "batch")}
