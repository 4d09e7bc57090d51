"""Run the emulator in a thread of this process, so that functions of this process can answer."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from batch_assets.emulator.asking import Source
from batch_assets.emulator.control_client import EmulatorControl
from batch_assets.emulator.faults import Faults
from batch_assets.emulator.service import Service, Settings
from batch_assets.emulator.serving import EmulatorServer, listen
from batch_assets.emulator.state import Store


class EmulatorThread(EmulatorControl):
    """An emulator in a thread. Use it as a context manager.

    A batch without a latency ends as soon as it is accepted, or as soon as its requests are answered.

    Args:
        state: The directory for batches.
        source: What answers the requests; `None` to emulate the answers.

    Attributes:
        state: The directory for batches.
        url: The URL of the API, for a client's `base_url`.
    """

    def __init__(self, state: Path, source: Source | None = None) -> None:
        self.state, self._source = state, source
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            store = Store(self.state)
            stack.callback(store.close)
            listener = stack.enter_context(listen("127.0.0.1", 0))
            settings = Settings(latency=0.0, cancel_delay=0.0)
            is_ready = threading.Event()

            def ready(url: str) -> None:
                self.url = url
                is_ready.set()

            server = EmulatorServer(Service(store, settings, Faults(), self._source), listener, ready)
            thread = threading.Thread(target=server.run, args=([listener],), name="batch emulator", daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            while not is_ready.wait(0.1):
                if not thread.is_alive():
                    raise RuntimeError("the emulator did not start")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
