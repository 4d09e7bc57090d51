"""A plan: what a run would send and what it would cost. Nothing is written or registered, and no batch is made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.retirement import retirement
from batch_assets.core.pipeline.unpriced_tools import not_in_costs
from batch_assets.core.requests.approval import replaces_approved
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.enough import Enough
from batch_assets.core.requests.estimate import Estimate
from batch_assets.core.requests.inputs import BeforeBuild, BuildInputs, preparing_build, reading_inputs
from batch_assets.core.requests.partition_build import PartitionBuild, readable
from batch_assets.core.requests.piloting import PilotNeed
from batch_assets.core.requests.rendering_change import RenderingChangedError, check_rendering
from batch_assets.core.requests.report import AskAgain, RequestsReport
from batch_assets.core.requests.token_counts import token_counter
from batch_assets.core.requests.unchanged import inputs_digest, unchanged_submission
from batch_assets.core.root import Root
from batch_assets.core.text import count, duration


@dataclass(frozen=True)
class Plan:
    """What a run of a partition would send.

    Attributes:
        report: What its build would report. It has no files.
        batches: The number of batches.
        warnings: What a user should know before, as texts.
    """

    report: RequestsReport
    batches: int
    warnings: list[str]

    @property
    def estimate(self) -> Estimate | None:
        """What the requests would cost; `None` if there are none."""
        return self.report.estimate

    @property
    def requests(self) -> int:
        """The number of requests that would be submitted."""
        return self.report.written

    @property
    def cost_as_text(self) -> str:
        """What would be sent and what it would cost, as one line."""
        return self.estimate.as_text if self.estimate is not None else "nothing would be sent"


def plan_requests(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    again: AskAgain,
    *,
    confirmation: Confirmation | None = None,
    table: Any = None,
) -> Plan:
    """Read the dataset and report what `build_requests` would write and what it would cost.

    Without a key, or when the API cannot be reached, the tokens of the prompts are estimated.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key; "" without partitions.
        again: What is sent again, and the limit.
        confirmation: That of a run over several partitions; `None` for a run of this one.
        table: The value of `dataset.asset`, if the pipeline has one.

    Raises:
        DatasetError: When the dataset cannot be used.
        ConfigError: When the pipeline does not fit the dataset's columns.
        BusyError: When other processes worked on the partition's requests or on the whole pipeline the whole time.
    """
    warnings = [] if (retires := retirement(pipeline, root.settings.prices, _today())) is None else [retires]
    if (excluded := not_in_costs(pipeline)) is not None:
        warnings.append(f"the cost is without {excluded}")
    with preparing_build(root, pipeline, partition) as before:
        digest = inputs_digest(pipeline, partition, before.located, before.erased)
        unchanged = unchanged_submission(root, before.newest, digest, again)
        if unchanged is not None:
            return Plan(unchanged, 0, warnings)
        with reading_inputs(root, pipeline, partition, table, before) as inputs:
            warnings += _of_rendering(root, pipeline, partition, before, inputs, again)
            held_by = confirmation or Confirmation(pipeline)
            return readable(root, lambda: _planned(root, pipeline, partition, inputs, again, held_by, warnings))


def _today() -> Any:
    return datetime.now(UTC).date()


def _of_rendering(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    before: BeforeBuild,
    inputs: BuildInputs,
    again: AskAgain,
) -> list[str]:
    """Return why a run would refuse to send answered rows again since an upgrade, if it would."""
    newest, dataset, templates = before.newest, inputs.dataset, inputs.templates
    try:
        readable(root, lambda: check_rendering(root, pipeline, partition, newest, dataset, templates, again))
    except RenderingChangedError as error:
        return [str(error)]
    return []


def _planned(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    inputs: BuildInputs,
    again: AskAgain,
    confirmation: Confirmation,
    warnings: list[str],
) -> Plan:
    with closing(PartitionBuild(root, pipeline, partition, inputs, again, is_planned=True)) as build:
        report, files = build.plan(token_counter(root, pipeline.headers))
    report.bytes = files.bytes
    held = []
    estimates, prompts = [report.estimate], [pipeline.prompt_digest]
    why_held = confirmation.why_held(estimates)
    if why_held is None or replaces_approved(
        root, build.replaced, prompts, estimates, requests=report.written, size=report.bytes
    ):
        confirmation.let_go(estimates)
        held = _of_few(root, pipeline, build.replaced, report.written)
    else:
        held = [f"a run would hold the requests until a user approves them: {why_held}"]
    of_pilot = _of_pilot(pipeline, build.pilot_turn.need, report.written)
    batches = files.files + (build.pilot_turn.need is PilotNeed.TAKE and bool(of_pilot))
    return Plan(report, batches, [*warnings, *held, *of_pilot])


def _of_few(root: Root, pipeline: Pipeline, replaced: Sequence[RequestFile], requests: int) -> list[str]:
    """Return what a user should know about `min_requests`, unless partitions count together for it."""
    enough = Enough.of(pipeline.config.batching)
    if enough is None or not requests or pipeline.config.batching.across_partitions:
        return []
    with root.ledger.read() as tx:
        now = tx.now
    held = enough.held(requests, replaced, now)
    if held is None:
        return []
    return [
        "a run that starts by itself would hold the requests until there are more, for "
        f"{duration(held.until - now)} at most: {held.why}"
    ]


def _of_pilot(pipeline: Pipeline, need: PilotNeed, requests: int) -> list[str]:
    """Return what a user should know about the pilot of a run."""
    config = pipeline.config.pilot
    if need is PilotNeed.TAKE and config is not None and requests > config.rows:
        return [f"a run would send a pilot of {count(config.rows, 'random request')} first, see `pilot`"]
    if need is PilotNeed.WAIT and requests:
        return ["a run would hold the requests until the pilot of this prompt is judged"]
    return []
