"""The page, as a marimo app. Cells run again when what they read has changed. `server.py` serves it."""

# ruff: noqa: B018 -- the last expression of a cell is what it shows
from typing import Any

import marimo

app = marimo.App(width="full", app_title="batch-assets")

with app.setup:
    import marimo as mo

    from batch_assets.dashboard import explorer, sections
    from batch_assets.dashboard.live import served

    live = served()


@app.cell
def _() -> Any:
    # Every two seconds each open page asks. What all of them show is read at most that often.
    refresh = mo.ui.refresh(options=["2s", "10s", "1m"], default_interval="2s", label="Look again every")
    get_look, set_look = mo.state(live.look())
    # The choices below are made again only when there is another pipeline: they keep what the user chose.
    get_names, set_names = mo.state(live.look().names)
    return get_look, get_names, refresh, set_look, set_names


@app.cell
def _(get_look: Any, refresh: Any) -> Any:
    mo.vstack(
        [
            mo.Html("<h1 style='font-size:1.6rem;font-weight:700;margin:0'>batch-assets</h1>"),
            sections.plain(f"root {live.root_name} · ledger {live.ledger_name} · read only"),
            mo.hstack([sections.read_at(get_look()), refresh], justify="start", wrap=True),
            sections.notices(get_look()),
        ]
    )
    return


@app.cell
def _(get_look: Any, get_names: Any, refresh: Any, set_look: Any, set_names: Any) -> Any:
    refresh.value
    newest = live.look()
    if newest.number != get_look().number:
        set_look(newest)
    if newest.names and newest.names != get_names():
        set_names(newest.names)
    return


@app.cell
def _(get_look: Any) -> Any:
    state = get_look().state
    mo.stop(state is None)
    spend = live.spend(get_look())
    mo.vstack([sections.heading("Pipelines"), sections.overview(state, spend), sections.partitions(state)])
    return spend, state


@app.cell
def _(state: Any) -> Any:
    mo.vstack(
        [
            sections.heading(
                "Batches",
                "Newest first, with the time that running ones have left. A diamond is a deadline that is near.",
            ),
            sections.batches(state),
        ]
    )
    return


@app.cell
def _(spend: Any, state: Any) -> Any:
    mo.vstack(
        [
            sections.heading("Cost", "What answers cost, beside what their runs were planned to cost."),
            sections.cost(state, spend),
        ]
    )
    return


@app.cell
def _(state: Any) -> Any:
    mo.vstack(
        [
            sections.heading("Failures", "Rows without an answer, answers that cannot be used, and why."),
            sections.failures(state.pipelines, live.failures),
            sections.heading(
                "Answers", "How often each value occurs, in enums and in other typed columns with few values."
            ),
            sections.distributions(state.pipelines, live.distributions),
        ]
    )
    return


@app.cell
def _(get_names: Any) -> Any:
    mo.stop(not get_names())
    pipeline = mo.ui.dropdown(list(get_names()), value=get_names()[0], label="Pipeline", allow_select_none=False)
    search = mo.ui.text(placeholder="a row key, or a text", label="Search", full_width=False)
    mo.vstack(
        [
            sections.heading("Rows", "Search by key, or by a text in the key, a carried column or the answer."),
            mo.hstack([pipeline, search], justify="start", wrap=True),
        ]
    )
    return pipeline, search


@app.cell
def _(pipeline: Any, search: Any) -> Any:
    rows, why_none = live.search(pipeline.value, search.value)
    found = explorer.found_rows(rows)
    found if rows else sections.note(why_none or "No row has this key or text.")
    return found, rows


@app.cell
def _(found: Any, rows: Any) -> Any:
    mo.stop(not rows)
    chosen = explorer.chosen_row(rows, found)
    row, versions, problem = live.opened(chosen) if chosen is not None else (None, [], None)
    explorer.whole_row(row, versions, problem)
    return (versions,)


@app.cell
def _(versions: Any) -> Any:
    by_name = {explorer.version_name(version): version for version in versions}
    choices = list(by_name)
    left = mo.ui.dropdown(choices, value=choices[-1] if len(choices) > 1 else None, label="Left")
    right = mo.ui.dropdown(choices, value=choices[0] if len(choices) > 1 else None, label="Right")
    mo.vstack(
        [
            sections.heading(
                "Prompts", "Two versions of the selected row's request side by side, with their answers."
            ),
            mo.hstack([left, right], justify="start", wrap=True) if len(choices) > 1 else mo.Html(""),
        ]
    )
    return by_name, left, right


@app.cell
def _(by_name: Any, left: Any, right: Any) -> Any:
    explorer.side_by_side(by_name.get(left.value), by_name.get(right.value))
    return


if __name__ == "__main__":
    app.run()
