"""The sections of the page, as elements of marimo. Each takes values and returns what is shown.

Texts of users and of answers are shown in tables or as plain text, and never as Markdown or HTML.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import marimo as mo

from batch_assets.core.answers.answers import REFUSED, TRUNCATED
from batch_assets.core.answers.result_types import ResultType, results_as_text
from batch_assets.core.errors import BatchAssetsError
from batch_assets.core.planning.status import PartitionState
from batch_assets.core.planning.time_to_go import TimeToGo
from batch_assets.core.prices.money import usd
from batch_assets.core.spend.build import SpendReport
from batch_assets.core.spend.spend_table import SpendTotal
from batch_assets.core.text import count, counts, dollars, duration, exact_moment, moment
from batch_assets.dashboard import charts, spending
from batch_assets.dashboard.live import Look
from batch_assets.dashboard.state import PipelineView, State
from batch_assets.dashboard.tables import Distribution, Failure, Failures

Element = Any
"""What marimo shows."""
T = TypeVar("T")
_BAR = 10
_PAGE = 20
_TABLE = "border-collapse:collapse;font-size:0.875rem;min-width:50%"
# Cells with short texts, such as times, are not wrapped.
_SHORT_CELL = 34
_CELL, _LEFT = "padding:0.35rem 0.9rem 0.35rem 0;vertical-align:top", "text-align:left"
_STATES = {
    PartitionState.NEEDS_USER: "⚠ needs you",
    PartitionState.DUE: "▶ due",
    PartitionState.WAITING: "… waiting",
    PartitionState.CANCELED: "✕ canceled",
    PartitionState.COMPLETE: "✓ complete",
}


def heading(title: str, note: str = "") -> Element:
    """Return the heading of a section, with a link to it and one sentence."""
    anchor = title.lower().replace(" ", "-")
    below = f"<p style='margin:0;color:#555'>{html.escape(note)}</p>" if note else ""
    return mo.Html(
        f"<h2 id='{anchor}' style='margin:1.2rem 0 0;font-size:1.3rem;font-weight:600'>{title}</h2>{below}"
    )


def table(lines: Sequence[Mapping[str, Any]], *, label: str = "") -> Element:
    """Return a small table that shows all of its lines and columns. Numbers are aligned to the right."""
    if not lines:
        return mo.Html("")
    names = list(dict.fromkeys(name for line in lines for name in line))
    head = "".join(
        f"<th scope='col' style='{_CELL};{_LEFT};color:#555'>{html.escape(name)}</th>" for name in names
    )
    body = "".join(
        "<tr style='border-top:1px solid #ddd'>" + "".join(_cell(line.get(name, "–")) for name in names) + "</tr>"
        for line in lines
    )
    caption = (
        f"<caption style='{_LEFT};color:#555;padding:0.3rem 0'>{html.escape(label)}</caption>" if label else ""
    )
    return mo.Html(
        f"<div tabindex='0' role='region' aria-label='{html.escape(label or 'table', quote=True)}' "
        f"style='overflow-x:auto'><table style='{_TABLE}'>{caption}"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"<td style='{_CELL};text-align:right'>{value:,}</td>"
    text = str(value)
    wrap = ";white-space:nowrap" if len(text) <= _SHORT_CELL else ";min-width:9rem"
    return f"<td style='{_CELL};{_LEFT}{wrap}'>{html.escape(text)}</td>"


def long_table(lines: Sequence[Mapping[str, Any]], label: str) -> Element:
    """Return a table of any length with pages, which can be sorted and searched."""
    return mo.ui.table(
        [dict(line) for line in lines],
        selection=None,
        page_size=_PAGE,
        show_download=False,
        show_column_summaries=False,
        show_data_types=False,
        label=label,
    )


def plain(text: str) -> Element:
    """Return a line of text."""
    return mo.Html(f"<p style='margin:0;overflow-wrap:anywhere'>{html.escape(text)}</p>")


def note(text: str, kind: Literal["neutral", "warn", "success", "danger"] = "neutral") -> Element:
    """Return a text in a box, which is wrapped: the page does not scroll sideways."""
    wrapped = f"<div style='white-space:pre-wrap;overflow-wrap:anywhere'>{html.escape(text)}</div>"
    return mo.callout(mo.Html(wrapped), kind=kind)


def _of_each(
    pipelines: Sequence[PipelineView], read: Callable[[PipelineView], T]
) -> tuple[list[tuple[PipelineView, T]], list[Element]]:
    """Return what is read of each pipeline and, as boxes, why others cannot be read: they hide nothing else."""
    found, problems = [], []
    for pipeline in pipelines:
        try:
            found.append((pipeline, read(pipeline)))
        except BatchAssetsError as error:
            problems.append(note(f"{pipeline.name}: {error}", "danger"))
    return found, problems


def notices(look: Look) -> Element:
    """Return what the user has to know first: a root that cannot be read, broken files, budgets near their cap."""
    boxes = [note(look.problem, "danger" if look.has_ledger else "neutral")] if look.problem is not None else []
    if look.broken:
        boxes.append(note("Broken pipeline files:\n" + "\n".join(look.broken), "danger"))
    if look.state is not None:
        near = [str(use) for use in look.state.budgets if use.is_near_cap]
        boxes += [note("\n".join(near), "warn")] if near else []
        if not look.state.pipelines:
            boxes.append(note("No run is recorded in this root yet. The page shows the first one when it begins."))
    if look.state is not None and look.state.is_emulated:
        boxes.append(note("This root uses the emulator: answers are made up, and amounts are not billed."))
    return mo.vstack(boxes)


def overview(state: State, spend: SpendReport | None) -> Element:
    """Return the most important numbers, and a line for each pipeline."""
    total = state.total
    cost = dollars(usd(SpendTotal.of(spend.rows).cost)) if spend is not None else "–"
    needing = total.states.get(PartitionState.NEEDS_USER, 0)
    share = f"{100 * total.done // total.rows} %" if total.rows else "–"
    unusable = f"; {count(total.unusable, 'answer')} cannot be used" if total.unusable else ""
    stats = [
        mo.stat(share, label="Rows with a final result", caption=f"{total.done:,} of {total.rows:,}{unusable}"),
        mo.stat(f"{total.answered:,}", label="Requests answered", caption=f"of {total.requests:,}"),
        mo.stat(f"{total.running:,}", label="Batches not collected", caption=_until(total.ends_by)),
        mo.stat(cost, label="Spent", caption="by the price list, all days"),
        mo.stat(f"{needing:,}", label="Need you", caption=count(total.partitions, "partition") + " in all"),
    ]
    lines = [
        {
            "pipeline": each.name,
            "state": counts({_STATES[state]: number for state, number in each.total.states.items()}),
            "progress": progress(each.total.done, each.total.rows),
            "answered": f"{each.total.answered:,} of {each.total.requests:,}",
            "results": results_as_text(each.total.results, each.total.unusable),
            "time to go": time_left(each.left),
            "waits for": each.partitions[0].waits_for,
        }
        for each in state.pipelines
    ]
    return mo.vstack([mo.hstack(stats, wrap=True, justify="start"), table(lines, label="Pipelines")])


def partitions(state: State) -> Element:
    """Return a line for each partition, those first that need a user, and what is wrong with them."""
    lines = [
        {
            "pipeline": each.name,
            "partition": view.status.partition or "–",
            "state": _STATES[view.status.state],
            "progress": progress(view.status.done, view.status.rows),
            "built": moment(view.status.created_at),
            "waits for": view.waits_for,
        }
        for each in state.pipelines
        for view in each.partitions
    ]
    errors = [
        {"pipeline": each.name, "partition": view.status.partition or "–", "problem": error}
        for each in state.pipelines
        for view in each.partitions
        for error in view.errors
    ]
    shown = [table(errors, label="Problems")] if errors else []
    return mo.vstack([*shown, mo.accordion({count(len(lines), "partition"): long_table(lines, "Partitions")})])


def progress(done: int, total: int) -> str:
    """Return a bar of text with numbers: "████░░░░ 1 of 2, 50 %". The bar is full only when all are done."""
    full = _BAR * done // total if total else _BAR
    percent = 100 * done // total if total else 100
    return f"{'█' * full}{'░' * (_BAR - full)} {done:,} of {total:,}, {percent} %"


def time_left(left: TimeToGo | None) -> str:
    """Return how long open batches probably still take, and when they end at the latest."""
    if left is None:
        return "–"
    latest = f"at the latest {moment(left.until)}" if left.until is not None else "no deadline is known"
    if left.seconds is None:
        return latest
    about = f"about {duration(left.seconds)}" if left.seconds else "any moment"
    return f"{about}, by the last {count(left.basis, 'batch', 'batches')}; {latest}"


def _until(ends_by: float | None) -> str:
    return f"end by {moment(ends_by)}" if ends_by is not None else "none is open"


def batches(state: State) -> Element:
    """Return the newest batches on a time line, and how long the provider took."""
    if not state.batches:
        return note("No batch was sent yet.")
    parts: list[Element] = [charts.timeline(state.batches, state.now)]
    lines = charts.latency_lines(state.batches)
    if lines:
        head = mo.Html("<h3 style='margin:0.8rem 0 0;font-weight:600'>Latency of the provider</h3>")
        parts += [head, charts.latency(state.batches), table(lines, label="From submission to end")]
    return mo.vstack(parts)


def cost(state: State, spend: SpendReport | None) -> Element:
    """Return what was spent by day, model and pipeline, beside the plan, and how much of the budgets is used."""
    if spend is None or not spend.rows:
        return note("Nothing was spent yet.")
    tabs = {
        f"By {by}": table(spending.amounts_by(spend.rows, by), label=f"Spent by {by}")
        for by in ("pipeline", "model", "day")
    }
    parts = [
        plain(SpendTotal.of(spend.rows).as_text),
        charts.cost_by_day(spending.day_bars(spend.rows)),
        mo.ui.tabs(tabs),
    ]
    if state.budgets:
        parts.append(table(spending.budget_lines(state.budgets), label="Budgets"))
    parts += [note("\n".join(spend.problems), "warn")] if spend.problems else []
    return mo.vstack(parts)


def failures(pipelines: Sequence[PipelineView], read: Callable[[PipelineView], Failures]) -> Element:
    """Return why rows have no answer that can be used, the most frequent causes first, with some of their keys.

    Args:
        pipelines: The pipelines.
        read: Returns why rows of one failed.
    """
    of_each, problems = _of_each(pipelines, read)
    found = sorted((failure for _, its in of_each for failure in its.causes), key=lambda failure: -failure.rows)
    if not found:
        return (
            mo.vstack(problems) if problems else note("No row has failed, and no answer is unusable.", "success")
        )
    lines: list[dict[str, Any]] = [
        {
            "pipeline": failure.pipeline,
            "rows": failure.rows,
            "result_type": failure.result_type,
            "why": " – ".join(filter(None, [failure.error_type, _why(failure)])),
            "for example": ", ".join(failure.keys),
        }
        for failure in found
    ]
    lines += [
        {"pipeline": pipeline.name, "rows": its.others, "why": "further causes"}
        for pipeline, its in of_each
        if its.others
    ]
    return mo.vstack(
        [*problems, table(lines, label="Failed rows and unusable answers by cause; look a key up under Rows")]
    )


def _why(failure: Failure) -> str:
    """Return the message of rows that failed or, without one, what it would say."""
    if failure.message:
        return f"such as: {failure.message}" if failure.is_varied else failure.message
    if failure.error_type == REFUSED:
        return "the model refused"
    if failure.error_type in TRUNCATED:
        return f"the answer was {TRUNCATED[failure.error_type]}"
    if failure.result_type == ResultType.EXPIRED:
        return "the batch ended before the request was processed"
    return "the request was canceled" if failure.result_type == ResultType.CANCELED else "–"


def distributions(
    pipelines: Sequence[PipelineView], read: Callable[[PipelineView], dict[str, Distribution]]
) -> Element:
    """Return how many rows have each value of the typed columns, for columns with few values."""
    of_each, parts = _of_each(pipelines, read)
    for pipeline, columns in of_each:
        if columns:
            shown = [charts.distribution(name, column) for name, column in columns.items()]
            parts += [plain(pipeline.name), mo.hstack(shown, wrap=True, justify="start", gap=2)]
    return mo.vstack(parts) if parts else note("No pipeline has a typed column with few values.")


def read_at(look: Look) -> Element:
    """Return when the root was read."""
    at = exact_moment(look.state.now) if look.state is not None else "never"
    return mo.Html(f"<span role='status' aria-live='off' style='color:#555'>As of {at}</span>")
