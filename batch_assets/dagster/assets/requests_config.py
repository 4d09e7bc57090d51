"""The config of `<name>/requests`: what a single run does otherwise. The Launchpad shows it."""

import dagster as dg
from pydantic import Field

from batch_assets.core.requests.report import AskAgain


class RequestsConfig(dg.Config):
    """What this run asks; left alone, all that has no answer yet."""

    limit: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Ask only so many of the requests still to ask, the first ones, in each partition. The other rows are "
            "pending until a run without a limit asks for them; those that failed for good stay as they are. A "
            "refresh with a limit goes on only with the next refresh: any other run keeps what came in, and ends "
            "it."
        ),
    )
    retry_failed: bool = Field(
        default=False, description="Ask again, once more, what failed for good or used up its attempts."
    )
    refresh: bool = Field(
        default=False,
        description=(
            "Ask again what is answered, too. Without `confirm` the run only says how many requests that would be "
            "and about what they would cost."
        ),
    )
    confirm: bool = Field(default=False, description="Of a refresh: the cost is known, send it.")

    @property
    def ask_again(self) -> AskAgain:
        """The same in the core's words."""
        return AskAgain(retry_failed=self.retry_failed, refresh=self.refresh, limit=self.limit)

    @property
    def only_says_cost(self) -> bool:
        """Whether nothing is to be built, because nobody has confirmed what it costs."""
        return self.refresh and not self.confirm
