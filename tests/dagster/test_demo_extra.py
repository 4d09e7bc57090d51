"""The demo's summary without the packages of the extra `demo`: it loads, and names what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from batch_assets import definitions

# Raised in the code of Dagster's own components.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

REVIEWS = pd.DataFrame(
    {
        "product": ["Lamp", "Lamp", "Lamp"],
        "is_ok": [True, False, True],
        "sentiment": ["positive", None, "negative"],  # the answer of the second row does not match the schema
        "needs_reply": [True, None, False],
    }
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a complete table of reviews."""
    folder = tmp_path / "root" / "review_triage" / "results"
    folder.mkdir(parents=True)
    REVIEWS.to_parquet(folder / "results.parquet")
    return tmp_path / "root"


def summarized() -> dg.ExecuteInProcessResult:
    """Load the code location from its files, and materialize the summary."""
    for name in [name for name in sys.modules if name.startswith("batch_assets.defs")]:
        del sys.modules[name]
    loaded = definitions.defs()
    summary = loaded.resolve_asset_graph().get(dg.AssetKey("review_summary")).assets_def
    return dg.materialize([summary], raise_on_error=False)


def test_the_summary_draws_its_chart(root: Path) -> None:
    assert summarized().success
    (product,) = pd.read_parquet(root / "review_summary" / "summary.parquet").to_dict("records")
    assert product == {"product": "Lamp", "reviews": 2, "negative": 1, "needs_reply": 1}


def test_without_matplotlib_the_summary_names_the_extra_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    result = summarized()
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    reason = failure.step_failure_data.user_failure_data
    assert reason is not None
    assert "pip install 'batch-assets[demo]'" in str(reason.description)
    assert not (root / "review_summary").exists()
