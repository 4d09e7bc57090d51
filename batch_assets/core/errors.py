"""Errors that the user sees. Each text says what was wrong, where, and what to do.

A remedy that the command line and Dagster word differently is a value next to the text: `error.remedy`.

    BatchAssetsError                     a retry may succeed, once what was in the way is gone
    ├── FinalError                       a retry fails again until the user changes something
    │   ├── ConfigError
    │   ├── SettingsError
    │   ├── DatasetError
    │   ├── EndpointMismatchError
    │   ├── PairingError
    │   ├── RenderingChangedError        core/requests/rendering_change.py
    │   ├── NoResultsError               core/reading/tables.py
    │   ├── SubmissionStoppedError
    │   ├── BrokenFilesError             dagster/broken/report.py
    │   └── BrokenPipelineError          cli/find_pipeline.py
    ├── LeaseLostError
    │   └── MoveRefusedError
    ├── BusyError
    ├── UnreachableError
    ├── ResultsError
    ├── UnfinishedRenamingError
    ├── MissingFileError
    ├── DamagedFileError
    │   └── DamagedResponsesError        core/store/responses.py
    ├── UnboundedCostError
    ├── StorageError
    ├── WorkerProcessError               core/io/worker_processes.py
    ├── SinkError
    ├── LedgerUnavailableError
    ├── LedgerVersionError
    ├── NoLedgerError
    ├── NoticeNotSentError               core/notify/delivery.py
    ├── NoticeRefusedError               core/notify/delivery.py
    ├── EraseError                       core/erase/run.py
    ├── ImportFailedError                core/imports/report.py
    ├── UnknownTargetError               core/batches/targets.py
    ├── RenameError                      core/rename.py
    ├── PruneError                       core/prune.py
    ├── PartitionError                   dagster/partitions.py
    ├── UnknownPipelineError             cli/find_pipeline.py
    ├── DefinitionsError                 cli/run.py
    ├── NotConfirmedError                cli/confirm.py
    ├── RunFailedError                   cli/headless.py
    └── EmulatorError                    cli/emulator.py

Errors of single API calls form a tree of their own, which the stages translate: see core/api/errors.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batch_assets.core.remedies import Remedy


class ErrorType(StrEnum):
    """The values of the column `error_type` that this project gives. All others are the API's."""

    TEMPLATE_ERROR = "template_error"
    """The row cannot be rendered, or gives a value that the API would refuse."""
    EMPTY_PROMPT = "empty_prompt"
    """The row gives no text where the API wants text."""
    INVALID_UNICODE = "invalid_unicode"
    """The row has text that is not valid Unicode."""
    INVALID_MEDIA = "invalid_media"
    """An image or PDF of the row is not what the API accepts."""
    UNREADABLE_ROW = "unreadable_row"
    """The row cannot be read or a value does not fit its type, and `dataset.bad_rows` is `reject`."""
    ERASED = "erased"
    """The row was erased: only its key is left, and it is not sent."""
    RENDER_REQUEST = "render_request"
    """The pipeline's own function rejected the row."""
    REQUEST_TOO_LARGE = "request_too_large"
    """The request is larger than a batch may be, or the API refused it as too large. The API has this type too."""
    MISSING_RESULT = "missing_result"
    """The batch ended without a result for the request."""
    RESULTS_ARCHIVED = "results_archived"
    """The API no longer had the results of the batch."""
    ANSWER_LOST = "answer_lost"
    """The answer was stored and is lost. The row is pending until a backup is restored or a user gives it up."""
    LIVE_CALL_LOST = "live_call_lost"
    """The reply to a live call was lost. It may have been paid for, and is not repeated."""
    PRUNED = "pruned"
    """The answer was removed from the response store. A row that asks for it is sent again by the next run."""
    UNREADABLE_RESULT = "unreadable_result"
    """The request succeeded, and its result has a value that cannot be stored."""
    INVALID_OUTPUT = "invalid_output"
    """The answer does not match the output schema."""


class BatchAssetsError(Exception):
    """Base of every error this project raises on purpose. Its text never holds a secret.

    Args:
        text: What was wrong, where, and what to do, as text for users of the command line and of Dagster alike.
        remedy: What to do, for these two to render as text.
    """

    def __init__(self, text: str = "", *, remedy: Remedy | None = None) -> None:
        self.remedy = remedy
        super().__init__(text)


class FinalError(BatchAssetsError):
    """Base of the errors that come back until the user changes something. Dagster does not retry them."""


class ConfigError(FinalError):
    """A pipeline file is wrong. Names the file and the field.

    Args:
        source: The pipeline file, as the user would open it.
        field: Dotted path of the field inside it, or "" for the file as a whole.
        problem: What is wrong and what to do.
        also: What else is wrong with the file.
    """

    def __init__(self, source: str, field: str, problem: str, also: Sequence[ConfigError] = ()) -> None:
        self.source, self.field, self.problem, self.also = source, field, problem, tuple(also)
        super().__init__(f"{source}: {field}: {problem}" if field else f"{source}: {problem}")


class SettingsError(FinalError):
    """An environment variable is missing or wrong."""


class DatasetError(FinalError):
    """The dataset cannot be used: missing file or column, unreadable content, bad row keys."""


class EndpointMismatchError(FinalError):
    """The root's ledger belongs to another API endpoint, organization or workspace."""


class PairingError(FinalError):
    """The root and the ledger do not belong together, or the root has lost its files. Names both."""


class LeaseLostError(BatchAssetsError):
    """Another process has taken over this one's work. This process may not record any of its results."""


class MoveRefusedError(LeaseLostError):
    """A request file, a batch or a submission is not in a state from which it may go where it should: another
    process has moved it on.

    Args:
        kind: file, batch or submission.
        entity: its id.
        before: its state; None where the ledger does not have it.
        after: the state that it should have come to.
        event: what should have happened to it.
    """

    def __init__(self, kind: str, entity: str, before: str | None, after: str, event: str) -> None:
        self.kind, self.entity, self.before, self.after = kind, entity, before, after
        now = before if before is not None else "not in the ledger"
        super().__init__(f"{kind} {entity} is {now}: it cannot become {after} ({event})")


class BusyError(BatchAssetsError):
    """Another process holds the lease this stage needs."""


class UnfinishedRenamingError(BatchAssetsError):
    """The renaming of a pipeline was interrupted: its files have the new name, and the ledger has the old one."""


class MissingFileError(BatchAssetsError):
    """A file that the ledger refers to is no longer under the root."""


class UnboundedCostError(BatchAssetsError):
    """Nothing bounds what a request can cost, so that no budget can hold it. Says why.

    Args:
        problem: What has no bound.
        field: Dotted path of the field of the request, or "" for no single one.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}" if field else problem)


class StorageError(BatchAssetsError):
    """A file or folder cannot be written: the disk is full, or write permission is missing. Names the path."""


class DamagedFileError(BatchAssetsError):
    """A file under the root does not hold what this project wrote there. Names the file."""


class LedgerUnavailableError(BatchAssetsError):
    """The ledger's database cannot be reached, or another process has locked it for too long."""


class LedgerVersionError(BatchAssetsError):
    """The ledger's tables are of another version of this package."""


class NoLedgerError(BatchAssetsError):
    """There is no ledger to look at: nothing has run yet."""


class SubmissionStoppedError(FinalError):
    """The API refused for a reason that a retry cannot fix (key, billing, spend limit)."""


class UnreachableError(BatchAssetsError):
    """The API could not be reached at all. Nothing was sent."""


class ResultsError(BatchAssetsError):
    """A batch's results could not be collected now."""


class SinkError(BatchAssetsError):
    """The database for the copy of the results cannot be reached, or it refuses them."""


Failure = BatchAssetsError | OSError
FAILURES = BatchAssetsError, OSError
"""What may go wrong in one partition while the others of a run go on."""


@dataclass(frozen=True)
class Wording:
    """How the command line or Dagster words problems: the text of the core, then the remedy.

    Attributes:
        remedy_text: Returns a remedy as one sentence without a period.
    """

    remedy_text: Callable[[Remedy], str]

    def problem(self, text: str, remedy: Remedy | None) -> str:
        """Return a text of the core, followed by its remedy if it has one."""
        return f"{text.removesuffix('.')}. {self.remedy_text(remedy)}" if remedy is not None else text

    def error(self, error: BatchAssetsError) -> str:
        """Return the text of an error, followed by its remedy if it has one."""
        return self.problem(str(error), error.remedy)
