"""The charts of the page. Colors tell apart what a text beside them names, too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

import altair as alt

from batch_assets.core.ledger.recent import RecentBatch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.text import count, duration
from batch_assets.dashboard.tables import Distribution

Chart = Any
"""A chart of Altair, whose methods return unions of charts."""
# Okabe and Ito's colors, which all common kinds of color blindness tell apart, without the yellow, which is too
# light on white.
_COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000"]
_BARS, _ENDED, _RUNNING = 40, "ended", "running"
_UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))
# The longest span of a time axis, in seconds, and how its times are written.
_FORMATS = ((600, "%H:%M:%S"), (86_400, "%H:%M"), (float("inf"), "%b %d %H:%M"))


def timeline(batches: Sequence[RecentBatch], now: float) -> Chart:
    """Return the newest batches on a time line: from submission to end or now, with the deadline of running ones.

    The line ends a little after now or, if none is running, after the last end. A deadline that is further away
    is a text beside the bar, and no mark.

    Args:
        batches: The batches, the newest first.
        now: The ledger's time.
    """
    shown = batches[:_BARS]
    first = min((_began(each, now) for each in shown), default=now)
    is_running = any(each.batch.state is BatchState.OPEN for each in shown)
    last = now if is_running else max((each.batch.ended_at or now for each in shown), default=now)
    end = last + max(1.0, (last - first) / 4)
    bars, deadlines = [], []
    for number, each in enumerate(shown):
        batch, began = each.batch, _began(each, now)
        is_open = batch.state is BatchState.OPEN
        took = duration((batch.ended_at or now) - began)
        due = batch.expires_at if is_open else None
        bar = {
            "batch": " ".join(filter(None, [each.pipeline, each.partition, f"…{batch.id[-6:]}"])),
            "order": number,
            "from": _time(began),
            "to": _time(max(began + 1.0, batch.ended_at or now)),
            "phase": _RUNNING if is_open else _ENDED,
            "requests": batch.requests,
            "text": took if due is None else f"{took}, {duration(due - now)} left",
        }
        bars.append(bar)
        if due is not None and due <= end:
            deadlines.append({**bar, "deadline": _time(due)})
    row = alt.Y("batch:N", sort=alt.EncodingSortField("order"), title=None, axis=alt.Axis(labelLimit=260))
    scale = alt.Scale(type="utc", domain=[1000 * first, 1000 * end])
    time = alt.X("from:T", title="time (UTC)", scale=scale, axis=_time_axis([first, end]))
    states = alt.Scale(domain=[_ENDED, _RUNNING], range=_COLORS[:2])
    base = alt.Chart(_data(bars)).encode(y=row)
    drawn = base.mark_bar(height={"band": 0.6}, strokeWidth=2).encode(
        x=time,
        x2="to:T",
        color=alt.Color("phase:N", scale=states, legend=alt.Legend(title=None, orient="top")),
        stroke=alt.Stroke("phase:N", scale=states, legend=None),
        tooltip=["batch:N", "phase:N", "requests:Q", "text:N"],
    )
    texts = base.mark_text(align="left", dx=5, color="#333").encode(x=alt.X("to:T", scale=scale), text="text:N")
    layers = [drawn, texts]
    if deadlines:
        marks = alt.Chart(_data(deadlines)).mark_point(shape="diamond", filled=True, size=90, color=_COLORS[3])
        layers.append(marks.encode(x=alt.X("deadline:T", scale=scale), y=row, tooltip=["batch:N", "deadline:T"]))
    return _sized(alt.layer(*layers), 40 + 22 * max(1, len(bars)))


def _began(each: RecentBatch, now: float) -> float:
    return each.batch.submitted_at or each.batch.created_at or now


def latency(batches: Sequence[RecentBatch]) -> Chart:
    """Return how long ended batches took, by the time of their end."""
    longest = max((each.seconds or 0.0 for each in batches), default=0.0)
    unit, seconds_each = next(each for each in _UNITS if longest >= 3 * each[1] or each[1] == 1)
    points = [
        {
            "ended": _time(each.batch.ended_at),
            "took": seconds / seconds_each,
            "pipeline": each.pipeline,
            "requests": each.batch.requests,
        }
        for each in batches
        if (seconds := each.seconds) is not None and each.batch.ended_at is not None
    ]
    chart = (
        alt.Chart(_data(points))
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X(
                "ended:T",
                title="end (UTC)",
                scale=alt.Scale(type="utc"),
                axis=_time_axis([each.batch.ended_at for each in batches if each.batch.ended_at is not None]),
            ),
            y=alt.Y("took:Q", title=f"{unit} from submission to end"),
            color=_color("pipeline"),
            shape=alt.Shape("pipeline:N", legend=alt.Legend(title=None, orient="top")),
            tooltip=["pipeline:N", "requests:Q", alt.Tooltip("took:Q", format=".1f", title=unit)],
        )
    )
    return _sized(chart, 220)


def latency_lines(batches: Sequence[RecentBatch]) -> list[dict[str, str]]:
    """Return for each pipeline how long its ended batches took: in the middle, nine of ten, and the longest."""
    took: dict[str, list[float]] = {}
    for each in batches:
        if (seconds := each.seconds) is not None:
            took.setdefault(each.pipeline, []).append(seconds)
    return [
        {
            "pipeline": name,
            "ended batches": f"{len(seconds):,}",
            "median": duration(median(seconds)),
            "nine of ten within": duration(sorted(seconds)[min(len(seconds) - 1, 9 * len(seconds) // 10)]),
            "longest": duration(max(seconds)),
        }
        for name, seconds in sorted(took.items())
    ]


def cost_by_day(bars: Sequence[dict[str, Any]]) -> Chart:
    """Return a bar for each day, divided by pipeline, of `day_bars`."""
    chart = (
        alt.Chart(_data(bars))
        .mark_bar(stroke="white", size=max(4, min(40, 700 // max(1, len({bar["day"] for bar in bars})))))
        .encode(
            x=alt.X("day:O", title="day (UTC)", axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("usd:Q", title="USD", axis=alt.Axis(format="$,.2~r")),
            color=_color("pipeline"),
            tooltip=["day:O", "pipeline:N", alt.Tooltip("usd:Q", format="$,.6f")],
        )
    )
    return _sized(chart, 220)


def distribution(name: str, column: Distribution) -> Chart:
    """Return how many rows have each value of a column.

    Args:
        name: The column.
        column: Its values. There is at least one.
    """
    values = _with_others(column)
    bars = [
        {"value": value, "rows": number, "share": f"{number:,} ({100 * number / column.rows:.0f} %)"}
        for value, number in values
    ]
    title = alt.Title(name, subtitle=_note(column))
    longest = max(number for _, number in values)
    base = alt.Chart(_data(bars), title=title).encode(
        x=alt.X("rows:Q", title=None, scale=alt.Scale(domainMax=1.25 * longest), axis=None),
        y=alt.Y("value:N", sort=None, title=None, axis=alt.Axis(labelLimit=140)),
    )
    text = base.mark_text(align="left", dx=4, color="#333").encode(text="share:N")
    layered: Chart = alt.layer(base.mark_bar(color=_COLORS[0]), text)
    return _plain(layered.properties(width=210, height=22 * len(bars)))


def _with_others(column: Distribution) -> list[tuple[str, int]]:
    """Return the values with their rows, and last all others together: of lists they cannot be added up."""
    if not column.more or column.is_list:
        return list(column.values)
    others = column.rows - sum(rows for _, rows in column.values)
    return [*column.values, (f"({count(column.more, 'other value')})", others)]


def _note(column: Distribution) -> str:
    if not column.is_list:
        return ""
    more = f" {count(column.more, 'more value')}." if column.more else ""
    return f"A row counts for each of its values.{more}"


def _color(field: str) -> alt.Color:
    return alt.Color(f"{field}:N", scale=alt.Scale(range=_COLORS), legend=alt.Legend(title=None, orient="top"))


def _time_axis(moments: Sequence[float]) -> alt.Axis:
    """Return an axis that writes times as exactly as their span needs."""
    span = max(moments, default=0.0) - min(moments, default=0.0)
    return alt.Axis(format=next(text for most, text in _FORMATS if span <= most), tickCount=6)


def _data(rows: Sequence[dict[str, Any]]) -> Any:
    return {"values": list(rows)}


def _sized(chart: Chart, height: int) -> Chart:
    return _plain(chart.properties(width="container", height=height))


def _plain(chart: Chart) -> Chart:
    """Return a chart without its menu, which would offer to open the data at a web site."""
    return chart.configure_view(stroke=None).properties(usermeta={"embedOptions": {"actions": False}})


def _time(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds is not None else None
