"""The remedies of the core as the command line words them: with the commands to type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from batch_assets.cli import text
from batch_assets.core.errors import Wording
from batch_assets.core.quoting import shell_quoted
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
    StartEmulator,
)

# Batches that one command is shown for. A longer one would not be read.
_IN_A_COMMAND = 20


def as_text(remedy: Remedy) -> str:
    """Return a remedy as one sentence without a period, so that a command at its end can be copied."""
    match remedy:
        case RunStage():
            return f"To {remedy.stage.purpose}: {run_command(remedy.pipeline, remedy.partition)}"
        case CancelBatch(batch_id):
            return _give_up_requests([batch_id])
        case GiveUpAnswers(batch_id):
            return _give_up_answers([batch_id])
        case Approve(pipeline, partition):
            return f"To let them go: {approve_command(pipeline, partition)}"
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


def as_texts(remedies: Sequence[Remedy]) -> list[str]:
    """Return remedies as sentences, see `as_text`: one for all batches that are given up for the same reason."""
    texts = [as_text(remedy) for remedy in remedies if not isinstance(remedy, CancelBatch | GiveUpAnswers)]
    if deleted := [remedy.batch_id for remedy in remedies if isinstance(remedy, CancelBatch)]:
        texts.append(_give_up_requests(deleted))
    if lost := [remedy.batch_id for remedy in remedies if isinstance(remedy, GiveUpAnswers)]:
        texts.append(_give_up_answers(lost))
    return texts


def _give_up_requests(ids: Sequence[str]) -> str:
    were = f"{ids[0]} was" if len(ids) == 1 else f"these {len(ids)} batches were"
    requests = "its requests" if len(ids) == 1 else "their requests"
    return f"If {were} deleted at the API: {cancel_command(ids)} gives {requests} up"


def _give_up_answers(ids: Sequence[str]) -> str:
    requests = "its requests" if len(ids) == 1 else "their requests"
    return (
        f"If no backup has them: {cancel_command(ids)} gives them up, and the next run sends {requests} "
        "again, which costs again"
    )


def cancel_command(ids: Sequence[str]) -> str:
    """Return the command that cancels batches or gives them up. If there are very many, it names none."""
    if len(ids) > _IN_A_COMMAND:
        return "`batch-assets cancel` with all their ids"
    return f"`batch-assets cancel {' '.join(map(shell_quoted, ids))}`"


def approve_command(pipeline: str, partition: str) -> str:
    """Return the command that approves held request files, for the shell."""
    return f"batch-assets approve {shell_quoted(pipeline)}{text.partition_option(partition)}"


def run_command(pipeline: str, partition: str) -> str:
    """Return the command that runs a pipeline, for the shell."""
    return f"batch-assets run {shell_quoted(pipeline)}{text.partition_option(partition)}"


_WORDING = Wording(as_text)
with_remedy, error_as_text = _WORDING.problem, _WORDING.error
