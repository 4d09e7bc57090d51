"""The remedies of the core as the command line words them: with the commands to type."""

from __future__ import annotations

from typing import assert_never

from batch_assets.cli import text
from batch_assets.core.errors import Wording
from batch_assets.core.quoting import shell_quoted
from batch_assets.core.remedies import (
    AcceptRendering,
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
    StartEmulator,
)


def as_text(remedy: Remedy) -> str:
    """Return a remedy as one sentence without a period, so that a command at its end can be copied."""
    match remedy:
        case RunStage():
            return f"To {remedy.stage.purpose}: {run_command(remedy.pipeline, remedy.partition)}"
        case CancelBatch(batch_id):
            cancel = f"batch-assets cancel {shell_quoted(batch_id)}"
            return f"If {batch_id} was deleted at the API: `{cancel}` gives its requests up"
        case GiveUpAnswers(batch_id):
            return (
                f"If no backup has them: `batch-assets cancel {shell_quoted(batch_id)}` gives them up, and the "
                "next run asks again"
            )
        case ListBatches():
            return "`batch-assets list` shows the workspace's batches and which of them belong to this root"
        case StartEmulator():
            return "`batch-assets emulator` starts an emulator and shows its URL"
        case NamePartition():
            return "Name the partition with --partition KEY"
        case AcceptRendering(pipeline, partition):
            return f"To accept it: {run_command(pipeline, partition)} --accept-rendering"
        case PairRoot():
            return "To pair them: `batch-assets move`"
        case ConfirmWorkspace(pipeline, partition):
            return f"If the key is of the same workspace: {run_command(pipeline, partition)} --same-workspace"
        case FinishRenaming(old, new):
            return f"To finish it: batch-assets rename {shell_quoted(old)} {shell_quoted(new)}"
        case GiveLedgerUrl():
            return "The URL comes from the variable BATCH_ASSETS_LEDGER or from the pipeline's resource"
        case _:
            assert_never(remedy)


def run_command(pipeline: str, partition: str) -> str:
    """Return the command that runs a pipeline, for the shell."""
    return f"batch-assets run {shell_quoted(pipeline)}{text.partition_option(partition)}"


_WORDING = Wording(as_text)
with_remedy, error_as_text = _WORDING.problem, _WORDING.error
