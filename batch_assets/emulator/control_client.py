"""The control endpoints of a running emulator, as methods."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any


class EmulatorControl:
    """Controls an emulator that runs, and shows what it received.

    Attributes:
        url: The URL of the API, for a client's `base_url`; "" before the start.
    """

    url = ""

    def control(self, path: str, body: Any = None) -> Any:
        """Call a control endpoint, such as `control("clock", {"advance": 60})`.

        Args:
            path: The path below /_emulator/.
            body: The JSON body of a POST; `None` for a GET.

        Raises:
            ValueError: When the emulator refuses the call. Its text is the reason.
        """
        __tracebackhide__ = True  # pytest shows the test's own line
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/_emulator/{path}", data, {"content-type": "application/json"}
        )
        # Without the proxies of the environment: the server is local.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                reason = json.load(error)["error"]["message"]
        raise ValueError(f"the emulator refuses /_emulator/{path}: {reason}")

    def faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Add fault rules; see `batch_assets.emulator.faults`.

        Raises:
            ValueError: When a rule is wrong; then none is added. The text is the reason.
        """
        __tracebackhide__ = True
        self.control("faults", list(rules))

    def reset_faults(self) -> None:
        """Remove all fault rules."""
        self.control("reset-faults", {})

    def settings(self, **values: Any) -> Any:
        """Change settings for batches created from now on, and return all settings.

        Raises:
            ValueError: When there is no such setting, or the value is wrong. The text is the reason.
        """
        __tracebackhide__ = True
        return self.control("settings", values)

    def clock(self, **values: Any) -> Any:
        """Set the clock, and return its state.

        Args:
            values: `reset` and `frozen` (bool), `advance` and `skew` (seconds).

        Raises:
            ValueError: When a value is wrong. The text is the reason.
        """
        __tracebackhide__ = True
        return self.control("clock", values)

    def end_batches(self, *ids: str) -> list[str]:
        """End batches now.

        Args:
            ids: The ids of the batches; none for all batches.

        Returns:
            The ids of the batches that had not ended before.
        """
        return self._move("end", ids)

    def expire_batches(self, *ids: str) -> list[str]:
        """Expire the unfinished requests of batches now. Arguments and result are as in `end_batches`."""
        return self._move("expire", ids)

    def archive_batches(self, *ids: str) -> list[str]:
        """Archive ended batches now, so that their results are gone.

        Args:
            ids: The ids of the batches; none for all batches.

        Returns:
            The ids of the batches that had ended.
        """
        return self._move("archive", ids)

    def _move(self, step: str, ids: tuple[str, ...]) -> list[str]:
        moved: list[str] = self.control(step, {"ids": list(ids)} if ids else {})["ids"]
        return moved

    def log(self, *, custom_ids: bool = False) -> list[dict[str, Any]]:
        """List every batch ever accepted, in order, deleted ones included.

        Args:
            custom_ids: Whether to include the custom_ids of its requests.
        """
        entries: list[dict[str, Any]] = self.control("log?custom_ids=true" if custom_ids else "log")
        return entries

    def bill(self, workspace: str | None = None) -> dict[str, Any]:
        """Return what batches and live calls cost in picodollars, and what of it was served.

        Args:
            workspace: Only the batches of this workspace; `None` for all.
        """
        query = f"?workspace={urllib.parse.quote(workspace)}" if workspace is not None else ""
        bill: dict[str, Any] = self.control(f"bill{query}")
        return bill

    def live_calls(self) -> list[dict[str, Any]]:
        """Return every live call that was answered, in order: its params as JSON, and its cost in picodollars."""
        calls: list[dict[str, Any]] = self.control("live_calls")
        return calls

    def requests(self) -> dict[str, int]:
        """Count the API calls received since the start, by method and path template."""
        counts: dict[str, int] = self.control("requests")
        return counts
