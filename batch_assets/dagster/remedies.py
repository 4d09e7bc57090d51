"""The remedies of the core as Dagster's users read them: with the assets to materialize and the jobs to launch."""

from __future__ import annotations

from typing import assert_never

from batch_assets.core.errors import Wording
from batch_assets.core.quoting import printable, shell_quoted
from batch_assets.core.remedies import (
    AcceptRendering,
    Approve,
    CancelBatch,
    ConfirmWorkspace,
    FinishRenaming,
    GiveLedgerUrl,
    GiveUpAnswers,
    ListBatches,
    NamePartition,
    PairRoot,
    Remedy,
    RunStage,
    Stage,
    StartEmulator,
)


def as_text(remedy: Remedy) -> str:
    """Return a remedy as one sentence without a period."""
    match remedy:
        case RunStage(stage, pipeline, partition):
            return f"To {stage.purpose}, {materialize(stage, pipeline, partition)}"
        case CancelBatch(batch_id, pipeline):
            return (
                f"If {batch_id} was deleted at the API: the job {pipeline}_cancel with `batch_id: {batch_id}` "
                "in its config gives its requests up"
            )
        case GiveUpAnswers(batch_id, pipeline):
            return (
                f"If no backup has them: the job {pipeline}_cancel with `batch_id: {batch_id}` in its config "
                f"gives them up, and the next run of {pipeline}/requests sends its requests again, which costs "
                "again"
            )
        case Approve(pipeline, partition):
            return f"To let them go, {launch_approve(pipeline, partition)}"
        case ListBatches():
            return (
                "In a terminal, `batch-assets list` shows the workspace's batches and which of them belong to "
                "this root"
            )
        case StartEmulator():
            return "In a terminal, `batch-assets emulator` starts an emulator and shows its URL"
        case NamePartition():
            return "Select the partition when you launch the run"
        case AcceptRendering(pipeline, partition):
            return (
                f"To accept it, {materialize(Stage.REQUESTS, pipeline, partition)} with "
                "`accept_rendering: true` in the Launchpad"
            )
        case PairRoot():
            return "To pair them: in a terminal, `batch-assets move`"
        case ConfirmWorkspace(pipeline, partition):
            option = f" --partition {shell_quoted(partition)}" if partition else ""
            return (
                "If the key is of the same workspace: in a terminal, "
                f"`batch-assets run {pipeline}{option} --same-workspace`"
            )
        case FinishRenaming(old, new):
            command = f"batch-assets rename {shell_quoted(old)} {shell_quoted(new)}"
            return f"To finish it: in a terminal, `{command}`"
        case GiveLedgerUrl():
            return "The URL comes from the variable BATCH_ASSETS_LEDGER or from the pipeline's resource"
        case _:
            assert_never(remedy)


def launch_approve(pipeline: str, partition: str = "") -> str:
    """Return how to approve held request files, as an imperative that fits into a sentence."""
    config = f" with `partition: {printable(partition)}` in its config" if partition else ""
    return f"launch the job {pipeline}_approve{config}"


def materialize(stage: Stage, pipeline: str, partition: str = "") -> str:
    """Return what to materialize, as an imperative that fits into a sentence."""
    return f"materialize {pipeline}/{stage}{f' for the partition {printable(partition)}' if partition else ''}"


_WORDING = Wording(as_text)
with_remedy, error_as_text = _WORDING.problem, _WORDING.error
