"""The explorer of rows: what a search finds, everything about one row, and versions of its prompt side by side."""

from __future__ import annotations

import difflib
import html
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import marimo as mo

from batch_assets.core.answers.result_columns import PARTITION
from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.text import count, duration, exact_moment
from batch_assets.dashboard.row_history import Answer, Version
from batch_assets.dashboard.sections import Element, note, plain, table
from batch_assets.dashboard.tables import MOST_ROWS, Row

# Characters of a text in a list, and of one value of a prompt: a document may be millions long.
_SHORT, _LONG = 120, 20_000


def found_rows(rows: Sequence[Row]) -> Element:
    """Return the rows that a search found, of which the user selects one.

    The columns have the names that they have in the table: no two of them are the same. Values are texts, because
    the browser would round large integers.
    """
    number = _number_name(rows)
    lines = [
        {
            number: str(at),
            row.row_key_name: row.key if row.key is not None else "–",
            **({PARTITION: row.partition} if row.partition else {}),
            "result_type": row.values["result_type"],
            **{name: _short(row.values[name]) for name in row.typed},
            "response_text": _short(row.values["response_text"]),
            **{name: _short(row.values[name]) for name in row.carried},
        }
        for at, row in enumerate(rows)
    ]
    more = "; there may be more" if len(rows) == MOST_ROWS else ""
    return mo.ui.table(
        lines,
        selection="single",
        initial_selection=[0] if lines else None,
        page_size=8,
        show_download=False,
        show_column_summaries=False,
        show_data_types=False,
        hidden_columns=[number] if lines else None,
        label=f"{count(len(rows), 'row')}{more}. Select one to see everything about it.",
    )


def chosen_row(rows: Sequence[Row], found: Element) -> Row | None:
    """Return the row that the user selected; `None` if none is.

    Args:
        rows: The rows.
        found: What `found_rows` returned for them.
    """
    return rows[int(found.value[0][_number_name(rows)])] if found.value else None


def _number_name(rows: Sequence[Row]) -> str:
    """Return a name that no column has, for the position of a row in the list."""
    taken = {name for row in rows for name in row.values}
    return next(name for number in itertools.count() if (name := f"number{number}") not in taken)


def whole_row(row: Row | None, versions: Sequence[Version], problem: str | None) -> Element:
    """Return a row with its prompt, answer, columns, cost and attempts, and its history.

    Args:
        row: The row; `None` if there is none to show.
        versions: The versions of its request.
        problem: Why something cannot be read.
    """
    boxes = [note(problem, "danger")] if problem is not None else []
    if row is None:
        return boxes[0] if boxes else note("Select a row.")
    values = row.values
    newest = next((version for version in versions if version.params is not None), None)
    prompt = prompt_text(newest.params) if newest is not None and newest.params is not None else None
    columns = [
        {"column": name, "value": _as_text(value, _LONG), "kind": _kind(name, row)}
        for name, value in values.items()
        if name not in ("response_json", "response_text") and value is not None
    ]
    cost = f"${values['cost_usd']:.6f}" if values.get("cost_usd") is not None else "no cost of its own"
    attempts = count(values.get("attempts") or 0, "attempt")
    key = row.key if row.key is not None else "no row key"
    facts = f"{row.pipeline} · {key} · {values['result_type']} · {cost} · {attempts}"
    return mo.vstack(
        [
            mo.Html("<h3 style='margin:0.5rem 0 0;font-weight:600'>Selected row</h3>"),
            plain(facts),
            *boxes,
            mo.hstack(
                [
                    _titled("Prompt as it was sent", prompt or "No request file has it any more."),
                    _titled("Answer", _answer_text(values)),
                ],
                widths="equal",
                wrap=True,
                align="start",
            ),
            mo.accordion({"All columns": table(columns)}),
            table(
                list(_history(versions)),
                label="History of this row: every attempt of every version of its request",
            ),
        ]
    )


def side_by_side(left: Version | None, right: Version | None) -> Element:
    """Return two versions of a row's request side by side, with their answers, and what differs."""
    if left is None or right is None:
        return note(
            "This row has one version of its prompt. After an edit, the versions are shown side by side here."
        )
    texts = [prompt_text(version.params) if version.params is not None else "" for version in (left, right)]
    difference = "\n".join(
        difflib.unified_diff(
            texts[0].splitlines(), texts[1].splitlines(), version_name(left), version_name(right), lineterm="", n=2
        )
    )
    return mo.vstack(
        [
            mo.hstack(
                [
                    mo.vstack(
                        [
                            _titled(version_name(version), text or version.rejected or "No request file has it."),
                            _titled(
                                "Answer", _answer_text(answer.values if (answer := version.newest_answer) else {})
                            ),
                        ]
                    )
                    for version, text in zip((left, right), texts, strict=True)
                ],
                widths="equal",
                wrap=True,
                align="start",
            ),
            _titled("What differs (- is left, + is right)", difference or "The prompts are equal."),
        ]
    )


def version_name(version: Version) -> str:
    """Return a name for a version: when it was built first, and the start of its digest."""
    return f"{exact_moment(version.first_at)} · {_mark(version)}"


def _mark(version: Version) -> str:
    return version.digest.hex()[:6] if version.digest is not None else ResultType.REJECTED


def prompt_text(params: dict[str, Any]) -> str:
    """Return params as people read them: model, system prompt, each message, then everything else as JSON."""
    rest = {name: value for name, value in params.items() if name not in ("model", "system", "messages")}
    parts = [f"model: {params.get('model')}"]
    if params.get("system"):
        parts.append(f"SYSTEM\n{_content(params['system'])}")
    for message in params.get("messages", []):
        parts.append(f"{str(message.get('role')).upper()}\n{_content(message.get('content'))}")
    parts.append(json.dumps(_cut(rest), indent=2, ensure_ascii=False))
    return "\n\n".join(parts)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else [content]
    return "\n".join(
        str(block["text"])
        if isinstance(block, dict) and isinstance(block.get("text"), str)
        else json.dumps(_cut(block), ensure_ascii=False)
        for block in blocks
    )


def _cut(value: Any) -> Any:
    """Return a value of params with its long strings cut: images and documents."""
    if isinstance(value, dict):
        return {name: _cut(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner) for inner in value]
    if isinstance(value, str) and len(value) > 1000:
        return f"{value[:200]}… ({len(value):,} characters)"
    return value


def _history(versions: Sequence[Version]) -> Iterator[dict[str, Any]]:
    for version in versions:
        for answer in version.answers:
            yield {
                "version": _mark(version),
                "attempt": answer.values["attempts"],
                "kind": answer.kind,
                "sent (UTC)": _sent(answer),
                "took": duration(answer.batch.seconds)
                if answer.batch and answer.batch.seconds is not None
                else "–",
                "outcome": " – ".join(filter(None, [answer.values["result_type"], answer.values["stop_reason"]])),
                "answer or reason": _short(
                    answer.values["response_text"]
                    or " – ".join(filter(None, [answer.values["error_type"], answer.values["error_message"]]))
                ),
                "cost": f"${answer.values['cost_usd']:.6f}" if answer.values["cost_usd"] is not None else "–",
                "batch": answer.values["batch_id"] or "–",
            }
        if not version.answers:
            why = version.rejected or "no answer yet"
            yield {"version": _mark(version), "outcome": "–", "answer or reason": why}


def _sent(answer: Answer) -> str:
    began = answer.batch.batch.submitted_at if answer.batch is not None else None
    return exact_moment(began).removesuffix(" UTC") if began is not None else "–"


def _answer_text(values: dict[str, Any]) -> str:
    if text := values.get("response_text"):
        return str(text)
    why = " – ".join(filter(None, [values.get("error_type"), values.get("error_message")]))
    return why or (str(values["result_type"]) if values.get("result_type") else "No answer yet.")


def _kind(name: str, row: Row) -> str:
    if name in row.typed:
        return "typed"
    return "carried" if name in row.carried else ""


def _titled(title: str, text: str) -> Element:
    cut = text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(text):,} characters)"
    return mo.vstack([mo.Html(f"<strong>{html.escape(title)}</strong>"), _plain(cut)])


def _plain(text: str) -> Element:
    style = "white-space:pre-wrap;overflow-wrap:anywhere;font-size:0.85rem;max-height:24rem;overflow:auto;margin:0"
    border = "border:1px solid #bbb;border-radius:6px;padding:0.6rem"
    return mo.Html(f"<pre tabindex='0' style='{style};{border}'>{html.escape(text)}</pre>")


def _short(value: Any) -> str | None:
    return _as_text(value, _SHORT) if value is not None else None


def _as_text(value: Any, most: int) -> str:
    """Return a value as text, cut after some characters."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= most else f"{text[:most]}…"
