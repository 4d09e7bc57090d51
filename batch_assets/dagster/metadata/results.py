"""The metadata of a materialization of `<name>/results`, or of an observation before it."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.io.layout import results_parts
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.own_batches import OwnBatches, own_batches
from batch_assets.core.ledger.records import Submission
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.unpriced_tools import not_in_costs
from batch_assets.core.prices.money import PICODOLLARS
from batch_assets.core.prices.prices import Prices
from batch_assets.core.requests.estimate import RecordedEstimate
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import CollectedResults
from batch_assets.core.root import Root
from batch_assets.core.template.cache_control import has_cache_control
from batch_assets.core.text import count
from batch_assets.dagster import keys
from batch_assets.dagster.metadata import markdown
from batch_assets.dagster.metadata.console import console_link
from batch_assets.dagster.metadata.estimate import range_metadata
from batch_assets.dagster.metadata.numbers import rounded, without_zeros
from batch_assets.dagster.metadata.values import values_metadata
from batch_assets.dagster.partitions import row_count_key
from batch_assets.dagster.remedies import as_text

_ERRORS_SHOWN = 20


def results_metadata(
    root: Root, pipeline: Pipeline, collected: CollectedResults, report: ResultsReport, partition: str
) -> dict[str, Any]:
    """Return the metadata. Numbers are numbers, so Dagster plots them; unknown values are left out, never 0.

    Counts and costs of what most tables do not have are left out if they are 0.
    """
    with root.ledger.read() as tx:
        submission = submissions.by_id(tx, report.submission_id)
        its_batches = own_batches(tx, report.submission_id)
    metadata: dict[str, Any] = {
        keys.SUBMISSION_ID: report.submission_id,
        row_count_key(partition): report.rows,
        **_rows(report),
        **_requests(submission, report, its_batches),
        **_tokens(report),
        **_cache(pipeline, report),
        **_cost(report, its_batches, root.settings.prices),
        **_seconds(its_batches),
        **_location(root, pipeline, report, partition),
        **console_link(root.settings, its_batches.ids),
    }
    metadata |= _estimate(pipeline, submission, report, metadata.get(keys.NEW_COST_USD))
    metadata |= values_metadata(report, partition)
    if excluded := not_in_costs(pipeline):
        metadata[keys.COST_EXCLUDES] = excluded
    if report.left_out:
        metadata[keys.LEFT_OUT] = report.left_out
    if report.kept:
        metadata[keys.KEPT] = report.kept
    if report.rescued:
        metadata[keys.RESCUED] = report.rescued
        if report.rescue_cost_usd is not None:
            metadata[keys.RESCUE_COST_USD] = rounded(report.rescue_cost_usd)
    if report.tally.errors:
        metadata[keys.ERRORS] = _errors(report)
    if collected.problems:
        metadata[keys.PROBLEMS] = dg.MetadataValue.json([*collected.problems, *map(as_text, collected.remedies)])
    return metadata


def _location(root: Root, pipeline: Pipeline, report: ResultsReport, partition: str) -> dict[str, Any]:
    """Return where users read the table and, if it is not the one of the report, where that one is."""
    uri = root.storage.uri(*results_parts(pipeline.name, partition)) if report.held_back else report.uri
    waiting = {keys.WAITING_TABLE: dg.MetadataValue.path(report.uri)} if report.held_back else {}
    return {keys.URI: uri, keys.TABLE: dg.MetadataValue.path(uri), **waiting}


def cost_unknown(report: ResultsReport, prices: Prices) -> str | None:
    """Return why the table's cost is unknown; None if it is known."""
    if report.cost_usd is not None:
        return None
    return f"The cost is unknown: {prices.why_unknown(report.tally.unpriced_models)}."


def _rows(report: ResultsReport) -> dict[str, float]:
    """Return the rows by result type, and the answers that cannot be used."""
    others = {keys.count_key(kind): report.counts[kind] for kind in ResultType if kind is not ResultType.SUCCEEDED}
    unusable = {
        keys.INVALID_OUTPUTS: report.invalid_outputs,
        keys.REFUSED_ANSWERS: report.refused_answers,
        keys.TRUNCATED_ANSWERS: report.truncated,
    }
    succeeded = {keys.count_key(ResultType.SUCCEEDED): report.counts[ResultType.SUCCEEDED]}
    return succeeded | without_zeros(others | unusable)


def _requests(submission: Submission, report: ResultsReport, its_batches: OwnBatches) -> dict[str, Any]:
    counted = report.tally.requests
    new = sum(count for batch_id, count in counted.items() if batch_id in its_batches.ids)
    counts = {
        keys.REQUESTS: submission.requests,
        keys.NEW: new,
        **without_zeros({keys.REUSED: counted.total() - new, keys.BYTES: its_batches.bytes}),
    }
    return counts | ({keys.ATTEMPTS: max(report.tally.attempts)} if report.tally.attempts else {})


def _tokens(report: ResultsReport) -> dict[str, float]:
    cached = {
        keys.CACHE_WRITE_TOKENS: report.tally.cache_creation_input_tokens,
        keys.CACHE_READ_TOKENS: report.tally.cache_read_input_tokens,
    }
    tokens = {keys.INPUT_TOKENS: report.input_tokens, keys.OUTPUT_TOKENS: report.output_tokens}
    return tokens | without_zeros(cached)


def _cache(pipeline: Pipeline, report: ResultsReport) -> dict[str, Any]:
    rate, saved = report.tally.cache_hit_rate, report.saved_cache_usd
    values = {
        keys.CACHE_HIT_RATE: round(rate, 4) if rate is not None else None,
        keys.SAVED_CACHE_USD: rounded(saved) if saved is not None else None,
        keys.CACHE_PROBLEM: report.cache_problem(has_cache_control=has_cache_control(pipeline.config.params)),
    }
    return {key: value for key, value in values.items() if value is not None}


def _cost(report: ResultsReport, its_batches: OwnBatches, prices: Prices) -> dict[str, Any]:
    answered = set(report.tally.requests)
    costs: dict[str, float | None] = {
        keys.COST_USD: report.cost_usd,
        keys.NEW_COST_USD: report.tally.cost_of(answered & its_batches.ids),
        keys.REUSED_COST_USD: report.tally.cost_of(answered - its_batches.ids),
        keys.LIVE_COST_USD: report.live_cost_usd,
    }
    known_costs = {key: rounded(value) for key, value in costs.items() if value is not None}
    if not known_costs.get(keys.REUSED_COST_USD):
        known_costs.pop(keys.REUSED_COST_USD, None)
    reason = cost_unknown(report, prices)
    return known_costs | ({keys.COST_UNKNOWN: reason} if reason else {})


def _estimate(
    pipeline: Pipeline, submission: Submission, report: ResultsReport, actual_usd: float | None
) -> dict[str, float]:
    """Return what the submission's own requests were estimated to cost, and how far the actual cost is off.

    Gathered partitions share batches, so what one of them cost alone is not known.
    """
    estimate = RecordedEstimate.of(submission.estimate)
    if estimate is None or estimate.batch is None:
        return {}
    metadata = range_metadata(estimate.batch)
    is_shared = pipeline.config.batching.across_partitions
    if report.final and estimate.is_known and actual_usd is not None and not is_shared:
        error = estimate.error_percent(round(actual_usd * PICODOLLARS))
        if error is not None:
            metadata[keys.ESTIMATE_OFF_PERCENT] = round(error, 2)
    return metadata


def _seconds(its_batches: OwnBatches) -> dict[str, float]:
    durations = {
        keys.QUEUE_SECONDS: its_batches.queue,
        keys.PROCESSING_SECONDS: its_batches.processing,
        keys.COLLECTION_SECONDS: its_batches.collection,
    }
    return {key: round(seconds, 1) for key, seconds in durations.items() if seconds is not None}


def _errors(report: ResultsReport) -> dg.MarkdownMetadataValue:
    """Return the number of rows by error, the most frequent first."""
    common = report.tally.errors.most_common()
    rows = [
        {"result_type": kind, "error_type": error, "rows": f"{number:,}"}
        for (kind, error), number in common[:_ERRORS_SHOWN]
    ]
    hidden = sum(number for _, number in common[_ERRORS_SHOWN:])
    note = f"… and {count(hidden, 'more row')} with other errors." if hidden else ""
    return markdown.table(["result_type", "error_type", "rows"], rows, note=note)
