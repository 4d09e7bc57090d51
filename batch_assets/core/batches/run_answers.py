"""What the API answers to every upload of a run. All uploads of the run share it, in several threads."""

from __future__ import annotations

import threading

from batch_assets.core.api.errors import RefusedError


class AllRefusedError(Exception):
    """Breaks off an upload: the API has refused another one for a reason that holds for all."""


class RunAnswers:
    """The refusals of a run's uploads.

    Attributes:
        refusal: The refusal that holds for every upload; `None` as long as there is none.
    """

    def __init__(self) -> None:
        self.refusal: RefusedError | None = None
        self._texts: set[str] = set()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check that the API has not refused every upload.

        Raises:
            AllRefusedError: When it has.
        """
        if self.refusal is not None:
            raise AllRefusedError

    def is_repeated(self, error: RefusedError) -> bool:
        """Note a refusal of one file. Return whether another file was refused in the same words.

        Then the reason is not in the bodies, unless the words are about single requests or the syntax of the body.
        """
        with self._lock:
            is_known = str(error) in self._texts
            self._texts.add(str(error))
        return is_known and not error.names_requests
