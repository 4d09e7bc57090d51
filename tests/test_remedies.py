"""The command line and Dagster each have words for every remedy of the core."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from batch_assets import build_message_batch_assets, build_message_batch_cancel_jobs
from batch_assets.cli import remedies as cli
from batch_assets.cli.run import run
from batch_assets.core.errors import BatchAssetsError
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
from batch_assets.dagster import remedies as dagster

# A remedy -> the words of the command line and those of Dagster.
WORDS: list[tuple[Remedy, str, str]] = [
    (
        RunStage(Stage.REQUESTS, "asked"),
        "To build requests again: batch-assets run asked",
        "To build requests again, materialize asked/requests",
    ),
    (
        RunStage(Stage.BATCHES, "asked", "de"),
        "To send the request files: batch-assets run asked --partition de",
        "To send the request files, materialize asked/batches for the partition de",
    ),
    (
        RunStage(Stage.RESULTS, "asked", "it's"),
        """To write the results again: batch-assets run asked --partition 'it'"'"'s'""",
        "To write the results again, materialize asked/results for the partition it's",
    ),
    (
        CancelBatch("msgbatch_1", "asked"),
        "If msgbatch_1 was deleted at the API: `batch-assets cancel msgbatch_1` gives its requests up",
        "If msgbatch_1 was deleted at the API: the job asked_cancel with `batch_id: msgbatch_1` in its config "
        "gives its requests up",
    ),
    (
        GiveUpAnswers("msgbatch_1", "asked"),
        "If no backup has them: `batch-assets cancel msgbatch_1` gives them up, and the next run sends its "
        "requests again, which costs again",
        "If no backup has them: the job asked_cancel with `batch_id: msgbatch_1` in its config gives them up, "
        "and the next run of asked/requests sends its requests again, which costs again",
    ),
    (
        Approve("asked", "de"),
        "To let them go: batch-assets approve asked --partition de",
        "To let them go, launch the job asked_approve with `partition: de` in its config",
    ),
    (
        ListBatches(),
        "`batch-assets list` shows the workspace's batches and which of them belong to this root",
        "In a terminal, `batch-assets list` shows the workspace's batches and which of them belong to this root",
    ),
    (
        StartEmulator(),
        "`batch-assets emulator` starts an emulator and shows its URL",
        "In a terminal, `batch-assets emulator` starts an emulator and shows its URL",
    ),
    (
        NamePartition(),
        "Name the partition with --partition KEY",
        "Select the partition when you launch the run",
    ),
    (
        FinishRenaming("old", "new"),
        "To finish it: batch-assets rename old new",
        "To finish it: in a terminal, `batch-assets rename old new`",
    ),
    (
        GiveLedgerUrl(),
        "The URL comes from the variable BATCH_ASSETS_LEDGER or from the pipeline's resource",
        "The URL comes from the variable BATCH_ASSETS_LEDGER or from the pipeline's resource",
    ),
    (
        AcceptRendering("asked", "de"),
        "To accept it: batch-assets run asked --partition de --accept-rendering",
        "To accept it, materialize asked/requests for the partition de with `accept_rendering: true` in the "
        "Launchpad",
    ),
    (PairRoot(), "To pair them: `batch-assets move`", "To pair them: in a terminal, `batch-assets move`"),
    (
        ConfirmWorkspace("asked", "de"),
        "If the key is of the same workspace: batch-assets run asked --partition de --same-workspace",
        "If the key is of the same workspace: in a terminal, `batch-assets run asked --partition de "
        "--same-workspace`",
    ),
]


@pytest.mark.parametrize(("remedy", "of_cli", "of_dagster"), WORDS)
def test_each_face_words_a_remedy(remedy: Remedy, of_cli: str, of_dagster: str) -> None:
    assert cli.as_text(remedy) == of_cli
    assert dagster.as_text(remedy) == of_dagster


def test_every_remedy_is_among_them() -> None:
    assert {type(remedy) for remedy, _, _ in WORDS} == set(get_args(Remedy))
    assert {remedy.stage for remedy, _, _ in WORDS if isinstance(remedy, RunStage)} == set(Stage)


@pytest.mark.parametrize("partition", ["", "de", "it's", "a b", "$(x)", "-x"])
def test_the_command_names_the_partition(partition: str) -> None:
    """The shell gives the key back, and the command takes it."""
    words = shlex.split(cli.run_command("asked", partition))
    assert words[:2] == ["batch-assets", "run"]
    assert run.make_context("run", words[2:]).params["partition"] == partition


def test_batches_that_are_given_up_share_a_command() -> None:
    ids = [f"msgbatch_{number}" for number in range(21)]
    deleted, lost = [CancelBatch(id_, "asked") for id_ in ids], [GiveUpAnswers(id_, "asked") for id_ in ids]
    assert cli.as_texts([deleted[0], PairRoot(), lost[0]]) == [
        cli.as_text(PairRoot()),
        cli.as_text(deleted[0]),
        cli.as_text(lost[0]),
    ]
    assert cli.as_texts([*deleted[:2], *lost[:2]]) == [
        "If these 2 batches were deleted at the API: `batch-assets cancel msgbatch_0 msgbatch_1` gives their "
        "requests up",
        "If no backup has them: `batch-assets cancel msgbatch_0 msgbatch_1` gives them up, and the next run sends "
        "their requests again, which costs again",
    ]
    (many,) = cli.as_texts(lost)
    assert many.startswith("If no backup has them: `batch-assets cancel` with all their ids gives them up")


def test_the_job_that_cancels_has_this_name(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n1,hello\n")
    params = {
        "model": "claude-haiku-5-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "{{ text }}"}],
    }
    dataset = {"path": "rows.csv", "key": "id"}
    assets = build_message_batch_assets(
        name="asked", dataset=dataset, params=params, folder=tmp_path, project=tmp_path
    )
    (job,) = build_message_batch_cancel_jobs(assets)
    assert f"the job {job.name} with" in dagster.as_text(CancelBatch("msgbatch_1", "asked"))


@pytest.mark.parametrize("face", [cli, dagster])
def test_an_error_is_followed_by_its_remedy(face: ModuleType) -> None:
    error = BatchAssetsError("No API to talk to.", remedy=StartEmulator())
    assert str(error) == "No API to talk to."
    assert face.error_as_text(error) == f"No API to talk to. {face.as_text(StartEmulator())}"
    assert face.error_as_text(BatchAssetsError("It is busy.")) == "It is busy."
