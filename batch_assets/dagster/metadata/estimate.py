"""The metadata of an estimate and of a plan."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_assets.core.prices.money import usd
from batch_assets.core.prices.range import Range
from batch_assets.core.requests.estimate import Estimate
from batch_assets.core.requests.plan import Plan
from batch_assets.core.requests.report import RequestsReport
from batch_assets.dagster import keys
from batch_assets.dagster.metadata.numbers import rounded, without_zeros
from batch_assets.dagster.metadata.prompt import request_as_markdown


def estimate_metadata(estimate: Estimate | None, rest: Estimate | None) -> dict[str, Any]:
    """Return the metadata of estimates. Amounts that are unknown are left out.

    Args:
        estimate: What the requests that are to be sent would cost.
        rest: What those beyond a limit would cost.
    """
    metadata: dict[str, Any] = {}
    if estimate is not None:
        metadata[keys.ESTIMATED_COST] = estimate.as_text
        if estimate.batch is not None:
            metadata |= range_metadata(estimate.batch)
    if rest is not None:
        metadata[keys.REST_COST] = rest.as_text
    return metadata


def preview_metadata(report: RequestsReport) -> dict[str, dg.MarkdownMetadataValue]:
    """Return one of the requests that are to be sent as metadata; nothing if there is none."""
    if report.example is None:
        return {}
    return {keys.PREVIEW: dg.MetadataValue.md(request_as_markdown(report.example))}


def range_metadata(amounts: Range) -> dict[str, float]:
    """Return the metadata of a range of amounts."""
    metadata = {
        keys.ESTIMATED_LOW_USD: rounded(usd(amounts.low)),
        keys.ESTIMATED_HIGH_USD: rounded(usd(amounts.high)),
    }
    if amounts.expected is not None:
        metadata[keys.ESTIMATED_COST_USD] = rounded(usd(amounts.expected))
    return metadata


def counts_of_rows(report: RequestsReport) -> dict[str, float]:
    """Return the numbers of rows and requests. What most builds do not have is left out if it is 0."""
    others = {
        keys.REJECTED: report.rejected,
        keys.REUSED: report.reused,
        keys.IN_FLIGHT: report.in_flight,
        keys.LEFT_OUT: report.left_out,
    }
    return {keys.ROWS: report.rows, keys.REQUESTS: report.requests, **without_zeros(others)}


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """Return the metadata of a plan."""
    report = plan.report
    metadata: dict[str, Any] = {
        **counts_of_rows(report),
        keys.ESTIMATED_REQUESTS: report.written,
        keys.BATCHES: plan.batches,
        keys.BYTES: report.bytes,
        keys.ESTIMATED_COST: plan.cost_as_text,
    }
    if plan.warnings:
        metadata[keys.WARNINGS] = dg.MetadataValue.json(plan.warnings)
    return metadata | estimate_metadata(report.estimate, report.rest) | preview_metadata(report)
