"""What a user can do about a problem, as values that the command line and Dagster render as text.

A text of the core says what is wrong and where, for every reader. It names no command, asset or job: its
reader may use the command line, Dagster or neither. An error or a report carries the remedy next to its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """A stage of a pipeline."""

    REQUESTS = "requests"
    BATCHES = "batches"
    RESULTS = "results"

    @property
    def purpose(self) -> str:
        """What a further run of the stage is for, as text that continues "to"."""
        return _PURPOSES[self]


_PURPOSES = {
    Stage.REQUESTS: "build requests again",
    Stage.BATCHES: "send the request files",
    Stage.RESULTS: "write the results again",
}


@dataclass(frozen=True)
class RunStage:
    """Run a stage of a pipeline again.

    Attributes:
        stage: The stage.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
    """

    stage: Stage
    pipeline: str
    partition: str = ""


@dataclass(frozen=True)
class CancelBatch:
    """Give up a batch that the API does not know, if it was deleted there.

    The API also does not know it if the key belongs to another workspace.

    Attributes:
        batch_id: The id of the batch.
        pipeline: The name of its pipeline.
    """

    batch_id: str
    pipeline: str


@dataclass(frozen=True)
class GiveUpAnswers:
    """Give up the answers of a batch that are lost, so that the next run sends its requests again.

    Attributes:
        batch_id: The id of the batch.
        pipeline: The name of its pipeline.
    """

    batch_id: str
    pipeline: str


@dataclass(frozen=True)
class Approve:
    """Let held request files go that wait for approval.

    Attributes:
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
    """

    pipeline: str
    partition: str = ""


@dataclass(frozen=True)
class ListBatches:
    """List the batches of the workspace, to see which of them belong to this root."""


@dataclass(frozen=True)
class StartEmulator:
    """Start an emulator of the API."""


@dataclass(frozen=True)
class NamePartition:
    """Name the partition to run."""


@dataclass(frozen=True)
class GiveLedgerUrl:
    """Give another URL of the ledger."""


@dataclass(frozen=True)
class AcceptRendering:
    """Send answered rows again that render differently since an upgrade.

    Attributes:
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
    """

    pipeline: str
    partition: str = ""


@dataclass(frozen=True)
class PairRoot:
    """Make a pair of the root and the ledger that are set, whatever they belonged to before."""


@dataclass(frozen=True)
class ConfirmWorkspace:
    """Confirm that the API key belongs to the workspace of the key that it replaces.

    Attributes:
        pipeline: The name of the pipeline that waits for it.
        partition: The partition key; "" without partitions.
    """

    pipeline: str
    partition: str = ""


@dataclass(frozen=True)
class FinishRenaming:
    """Finish the renaming of a pipeline, whose files have the new name already.

    Attributes:
        old: The name in the ledger.
        new: The name of the folder.
    """

    old: str
    new: str


Remedy = (
    RunStage
    | CancelBatch
    | GiveUpAnswers
    | Approve
    | ListBatches
    | StartEmulator
    | NamePartition
    | GiveLedgerUrl
    | AcceptRendering
    | PairRoot
    | ConfirmWorkspace
    | FinishRenaming
)
