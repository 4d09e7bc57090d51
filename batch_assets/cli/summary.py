"""The table at the end of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pyarrow.parquet as pq

from batch_assets.cli import text
from batch_assets.core.answers.result_types import ResultType, failed_rows
from batch_assets.core.io.layout import results_parts, waiting_parts
from batch_assets.core.io.slices import slices_of
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.pipeline.unpriced_tools import not_in_costs
from batch_assets.core.quoting import printable
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.shown_rows import first_answers, first_failed, first_unusable
from batch_assets.core.root import Root
from batch_assets.core.text import count, counts, dollars

_SHOWN, _WIDTH = 3, 160


def summary(root: Root, pipeline: Pipeline, partition: str, results: ResultsReport) -> Iterator[str]:
    """Yield lines for rows by result type with the reasons, for tokens, cost, and the location of the table."""
    reasons = _reasons(root, (waiting_parts if results.held_back else results_parts)(pipeline.name, partition))
    yield f"{text.partition_name(pipeline.name, partition)}: {count(results.rows, 'row')}"
    for kind in ResultType:
        if results.counts[kind] or kind is ResultType.SUCCEEDED:
            yield _line(
                kind, f"{results.counts[kind]:,}", _as_text(reasons.get(kind, Counter()), results.counts[kind])
            )
    if results.unusable:
        yield _line("unusable", f"{results.unusable:,}", "answers that cannot be used: their is_ok is false")
    if results.refused_answers:
        yield _line("refused", f"{results.refused_answers:,}", "answers that are refusals of the model")
    if results.truncated:
        yield _line(
            "truncated", f"{results.truncated:,}", "answers that were cut off (raise max_tokens) or paused"
        )
    if results.kept:
        yield _line("kept", f"{results.kept:,}", "older answers: the requests of the refresh failed")
    if results.rescued:
        cost = results.rescue_cost_usd
        note = f"by live calls, for {dollars(cost) if cost is not None else 'an unknown amount'}"
        yield _line("rescued", f"{results.rescued:,}", note)
    yield _line("input tokens", f"{results.input_tokens:,}")
    yield _line("output tokens", f"{results.output_tokens:,}")
    if (share := results.tally.cache_hit_rate) is not None:
        yield _line("cache", f"{share:.0%}", f"read of what was cached; {_saved(results)}")
    yield _line("cost", *_cost(root, results))
    if excluded := not_in_costs(pipeline):
        yield _line("", "", f"without {excluded}")
    yield from _failed(root, pipeline, partition, results)
    if results.left_out:
        yield from _answers(root, pipeline, partition, results)
    if results.held_back:
        yield f"  waiting in {text.short_path(results.uri)}"
        results_uri = root.storage.uri(*results_parts(pipeline.name, partition))
        yield f"  the complete table stays until this one is complete: {text.short_path(results_uri)}"
    else:
        yield f"  results in {text.short_path(results.uri)}"


def _line(label: str, value: str, note: str = "") -> str:
    return f"  {label:<14}{value:>14}  {note}".rstrip()


def _failed(root: Root, pipeline: Pipeline, partition: str, results: ResultsReport) -> Iterator[str]:
    """Yield the first rows that failed, and the first answers that cannot be used, one for each cause."""
    kinds = {
        "failed rows": (failed_rows(results.counts), first_failed),
        "unusable": (results.unusable, first_unusable),
    }
    for label, (number, first) in kinds.items():
        if not number:
            continue
        columns, rows = first(root, pipeline, partition, _SHOWN, is_waiting=results.held_back, distinct=True)
        for at, row in enumerate(rows):
            kind = row["error_type"] or row.get("stop_reason") or row["result_type"]
            reason = ": ".join(filter(None, [kind, row["error_message"], row.get("response_text")]))
            yield _shown(label if at == 0 else "", row[columns[0]], reason)


def _answers(root: Root, pipeline: Pipeline, partition: str, results: ResultsReport) -> Iterator[str]:
    """Yield the first answers that can be used."""
    columns, rows = first_answers(root, pipeline, partition, _SHOWN, is_waiting=results.held_back)
    for number, row in enumerate(rows):
        values = {name: row[name] for name in columns[2:]}
        answer = next(iter(values.values())) if len(values) == 1 else values
        as_text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)
        yield _shown("answers" if number == 0 else "", row[columns[0]], as_text)


def _shown(label: str, key: object, value: str) -> str:
    """Return a line for a row: its key and a value, on one line and cut."""
    line = " ".join(f"{key}: {value}".split())
    return printable(f"  {label:<14}{line if len(line) <= _WIDTH else f'{line[: _WIDTH - 1]}…'}")


def _cost(root: Root, results: ResultsReport) -> tuple[str, str]:
    if results.cost_usd is None:
        return "unknown", root.settings.prices.why_unknown(results.tally.unpriced_models)
    note = "by the price list; the emulator bills nothing" if root.settings.emulator_url else "by the price list"
    return dollars(results.cost_usd), note


def _saved(results: ResultsReport) -> str:
    saved = results.saved_cache_usd or 0.0
    return f"it saved {dollars(saved)}" if saved >= 0 else f"it cost {dollars(-saved)} more than it saved"


def _as_text(reasons: Counter[str], rows: int) -> str:
    only = next(iter(reasons), "")
    return only if reasons[only] == rows else counts(reasons, nothing="")


def _reasons(root: Root, parts: tuple[str, ...]) -> dict[str, Counter[str]]:
    """Count rows by error type, for each result type."""
    reasons: dict[str, Counter[str]] = {}
    with pq.ParquetFile(root.storage.open(*parts), pre_buffer=False) as file:
        for rows in slices_of(file, ["result_type", "error_type"]):
            for kind, reason in zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), strict=True):
                if reason is not None:
                    reasons.setdefault(kind, Counter())[reason] += 1
    return reasons
