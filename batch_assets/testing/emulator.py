"""The emulator that a test controls."""

from __future__ import annotations

from pathlib import Path

from batch_assets.emulator.thread import EmulatorThread
from batch_assets.testing.script import Script, ScriptedAnswers


class BatchEmulator(EmulatorThread):
    """An emulator of the Message Batches API, in a thread of the test, with answers of the test.

    Its other methods are those of a running emulator: `faults` and `reset_faults`, `clock` and `settings`,
    `end_batches` and `expire_batches`, and `log`, `bill`, `requests` and `live_calls` to see what it received.

    Args:
        state: The directory for batches.
    """

    def __init__(self, state: Path) -> None:
        self._script = ScriptedAnswers()
        super().__init__(state, self._script)

    def answers(self, script: Script) -> None:
        """Answer requests as a script says. What no script answers gets an emulated answer.

        A value is text, or anything else for JSON: the answer to an `output_schema`, or the input of a tool that
        must be called. `ToolCall` calls another tool, `Failure` is an error, `Answer` has another `stop_reason`,
        and None leaves the request to the scripts that were added before.

        Args:
            script: A map of row key to value, or a function that takes an `AskedRequest` and returns a value. Rows
                with the same request share the answer of the first of them.

        Raises:
            ValueError: When two row keys of a map are the same in a request.
        """
        self._script.add(script)

    def check(self) -> None:
        """Raise what a function of a script raised, in the test's own thread."""
        __tracebackhide__ = True
        problem, self._script.problem = self._script.problem, None
        if problem is not None:
            raise problem

    @property
    def unused(self) -> list[object]:
        """The row keys of scripts for which no request was sent."""
        return self._script.unused
