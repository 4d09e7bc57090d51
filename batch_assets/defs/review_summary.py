"""Summarizes all reviews in a small table and a chart, whenever review_triage/results is complete."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_assets.core.io.layout import results_parts
from batch_assets.core.open_root import open_root
from batch_assets.dagster.metadata import markdown

if TYPE_CHECKING:
    import pandas as pd


@dg.asset(
    deps=[dg.AssetKey(["review_triage", "results"])],
    group_name="review_triage",
    kinds={"pandas"},
    automation_condition=dg.AutomationCondition.eager(),
)
def review_summary() -> dg.MaterializeResult[Any]:
    """Reviews by product: their number, how many are negative, and how many need a reply."""
    import pandas as pd

    with open_root() as root:
        with root.storage.open(*results_parts("review_triage", "")) as file:
            reviews = pd.read_parquet(file, columns=["product", "is_ok", "sentiment", "needs_reply"])
        answered = reviews[reviews["is_ok"]]
        image = chart(answered)
        summary = summarize(answered)
        with root.storage.write("review_summary", "summary.parquet") as scratch:
            summary.to_parquet(scratch)
        uri = root.storage.uri("review_summary", "summary.parquet")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(summary),
            "dagster/uri": uri,
            "reviews": len(reviews),
            "answered": len(answered),
            "chart": dg.MetadataValue.md(f"![Reviews by mood]({image})"),
            "products": markdown.table(list(summary.columns), summary.head(10).to_dict("records")),
        }
    )


def summarize(answered: pd.DataFrame) -> pd.DataFrame:
    """One row per product; products with the most reviews that need a reply come first."""
    grouped = answered.groupby("product")
    summary = grouped.agg(
        reviews=("sentiment", "size"),
        negative=("sentiment", lambda moods: int((moods == "negative").sum())),
        needs_reply=("needs_reply", "sum"),
    )
    return summary.astype("int64").sort_values(["needs_reply", "reviews"], ascending=False).reset_index()


def chart(answered: pd.DataFrame) -> str:
    """A bar chart of moods as a data URI.

    Raises:
        Failure: When matplotlib is not installed. Only this demo needs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise dg.Failure(
            "The chart of review_summary needs matplotlib. Install it: pip install 'batch-assets[demo]'",
            allow_retries=False,
        ) from error

    moods = answered["sentiment"].value_counts()
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(moods.index.tolist(), moods.tolist(), color="#4f6bd8")
    axes.set_ylabel("reviews")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()
