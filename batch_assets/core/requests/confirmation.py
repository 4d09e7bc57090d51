"""`confirm_above`: what a run would send is held until a user approves it, if it may cost more."""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.prices.money import PICODOLLARS, usd
from batch_assets.core.requests.estimate import Estimate, RecordedEstimate
from batch_assets.core.text import exact_dollars


class Confirmation:
    """Decides for one run whether its request files are held. Of several partitions, the sum counts.

    Args:
        pipeline: The pipeline.
        is_approved: A user has agreed to whatever the run costs.
    """

    def __init__(self, pipeline: Pipeline, *, is_approved: bool = False) -> None:
        above = pipeline.config.confirm_above
        self._limit = round(above * PICODOLLARS) if above is not None and not is_approved else None
        self._let_go = 0

    def why_held(self, estimates: Iterable[Estimate | None]) -> str | None:
        """Return why requests that are registered at once are held; `None` if they are not.

        Args:
            estimates: What they would cost; `None` for a submission without new requests.
        """
        known = [estimate for estimate in estimates if estimate is not None]
        if self._limit is None or not known:
            return None
        above = f"confirm_above is {exact_dollars(usd(self._limit))}"
        unpriced = sorted({model for estimate in known for model in estimate.unpriced_models})
        if unpriced:
            return f"there is no price for {', '.join(unpriced)}, and {above}"
        if unbounded := next(filter(None, (estimate.unbounded for estimate in known)), ""):
            return f"{unbounded}, and {above}"
        high = highest(known)
        if self._let_go + high <= self._limit:
            return None
        before = (
            f", beside {exact_dollars(usd(self._let_go))} of the run's other partitions" if self._let_go else ""
        )
        return f"it may cost {exact_dollars(usd(high))}{before}, and {above}"

    def let_go(self, estimates: Iterable[Estimate | None]) -> None:
        """Count requests that were registered and are not held."""
        self._let_go += highest(estimates)


def highest(estimates: Iterable[Estimate | RecordedEstimate | None]) -> int:
    """Return the sum of the upper ends of estimates, in picodollars. What has no price is not in it."""
    batches = [estimate.batch for estimate in estimates if estimate is not None]
    return sum(batch.high for batch in batches if batch is not None)
