"""Errors for the person who reads them: what was wrong, where, and what to do."""


class BatchAssetsError(Exception):
    """Base of every error this project raises on purpose. Its text never holds a secret."""


class ConfigError(BatchAssetsError):
    """A pipeline file is wrong. Names the file and the field.

    Args:
        source: the pipeline file, as the user would open it.
        field: dotted path of the field inside it, or "" for the file as a whole.
        problem: what is wrong and what to do.
    """

    def __init__(self, source: str, field: str, problem: str) -> None:
        self.source, self.field, self.problem = source, field, problem
        super().__init__(f"{source}: {field}: {problem}" if field else f"{source}: {problem}")


class SettingsError(BatchAssetsError):
    """An environment variable is missing or wrong."""


class DatasetError(BatchAssetsError):
    """The dataset cannot be used: missing file or column, unreadable content, bad row keys."""


class EndpointMismatchError(BatchAssetsError):
    """The root's ledger belongs to another API endpoint or organization."""


class LeaseLostError(BatchAssetsError):
    """Another process has taken over the work this one was doing; nothing of it may be recorded."""


class BusyError(BatchAssetsError):
    """Another process holds the lease this stage needs."""


class MissingFileError(BatchAssetsError):
    """A file that the ledger counts on is not under the root any more."""


class StorageError(BatchAssetsError):
    """A file or folder cannot be written: the disk is full, or it may not be written to. Names the path."""


class DamagedFileError(BatchAssetsError):
    """A file under the root does not hold what this project wrote there. Names the file."""


class LedgerVersionError(BatchAssetsError):
    """A later version of this package has changed the ledger's tables."""


class SubmissionStoppedError(BatchAssetsError):
    """The API refused in a way that repeating cannot mend (key, billing, spend limit)."""


class UnreachableError(BatchAssetsError):
    """The API could not be reached at all; nothing was sent."""


class ResultsError(BatchAssetsError):
    """A batch's results could not be collected now."""


class SinkError(BatchAssetsError):
    """The database that gets a copy of the results cannot be reached or refuses them."""
