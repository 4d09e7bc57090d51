"""Small blocks of a pipeline file, with defaults that most pipelines can keep."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal

from pydantic import Field, field_validator, model_validator

from batch_assets.core.answers.follow_up_rules import MOST_TIMES, FollowUpRules, TruncatedRule
from batch_assets.core.client_settings import LONGEST_TIMEOUT, SHORTEST_TIMEOUT, is_id
from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.pipeline.time_span import seconds_of
from batch_assets.core.pipeline.variables import check_not_credentials, is_variable
from batch_assets.core.prices.budget import MOST_USD, Budget, Hold, Period, picodollars_of

# Limits of the API: 100,000 requests or 256 MB per batch, whichever is reached first.
# https://platform.claude.com/docs/en/build-with-claude/batch-processing
MAX_REQUESTS = 100_000
MAX_MB = 256.0


class BatchingConfig(ConfigBlock):
    """How requests are split into batches."""

    max_requests: int = Field(
        default=MAX_REQUESTS, ge=1, le=MAX_REQUESTS, description="Maximum number of requests in one batch."
    )
    max_mb: float = Field(
        default=250.0, gt=0, le=MAX_MB, description="Maximum size of one batch in megabytes (10^6 bytes)."
    )
    max_in_flight: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of queued requests of the pipeline. Default: what the account takes.",
    )
    min_requests: int | None = Field(
        default=None,
        ge=1,
        description="Fewer new requests than this are held until there are more, unless a user started the run. "
        "Default: any number is sent.",
    )
    max_wait: str | None = Field(
        default=None,
        description="How long requests are held for min_requests at most, such as 90m, 6h or 1d.",
    )
    priority: str | None = Field(
        default=None,
        min_length=1,
        description="A column of numbers, or a Jinja template over the row. Requests with a larger number go into "
        "earlier batches.",
    )
    across_partitions: bool = Field(
        default=False,
        description="Whether a run over many partitions gathers their requests in the same batches.",
    )

    @field_validator("max_wait")
    @classmethod
    def _max_wait_is_a_time_span(cls, max_wait: str | None) -> str | None:
        if max_wait is not None:
            seconds_of(max_wait)
        return max_wait

    @model_validator(mode="after")
    def _gathers_by_both(self) -> BatchingConfig:
        if self.min_requests is not None and self.max_wait is None:
            raise ValueError(
                "min_requests needs max_wait, such as 6h: otherwise the last few requests would never be sent"
            )
        if self.max_wait is not None and self.min_requests is None:
            raise ValueError("max_wait needs min_requests, the number of requests that are not held")
        return self


class RetryConfig(ConfigBlock):
    """How often a request is sent if it fails for a reason that may pass, and which answers are asked again."""

    max_attempts: int = Field(default=3, ge=1, le=100, description="Attempts per request, including the first.")
    invalid: int = Field(
        default=0,
        ge=0,
        le=MOST_TIMES,
        description="How often an answer that does not match the output schema is asked again.",
    )
    truncated: TruncatedRule | None = Field(
        default=None,
        description="Answers that were cut off are asked again with a larger max_tokens. Default: never.",
    )
    paused: int = Field(
        default=0,
        ge=0,
        le=MOST_TIMES,
        description="How often a turn that the model paused (pause_turn), or that calls tools with a function, is "
        "continued.",
    )

    def follow_ups(self, tools: Iterable[str] = ()) -> FollowUpRules | None:
        """Return which answers are followed by another request; `None` if none are.

        Args:
            tools: The names of the tools that have a function.
        """
        if not (self.invalid or self.truncated or self.paused):
            return None
        return FollowUpRules(
            invalid=self.invalid, truncated=self.truncated, paused=self.paused, tools=tuple(sorted(tools))
        )


class ClientConfig(ConfigBlock):
    """How the API is called for a pipeline. Its root decides provider and workspace, and has to have these."""

    provider: Literal["anthropic", "aws", "google-cloud"] | None = Field(
        default=None,
        description="The provider that the root must have: anthropic, aws or google-cloud. Default: any.",
    )
    workspace: str | None = Field(
        default=None, description="The id of the workspace that the root must have. Default: any."
    )
    profile: str | None = Field(
        default=None,
        description="The id of the user profile that requests are attributed to. Default: that of the root.",
    )
    timeout: float | None = Field(
        default=None,
        ge=SHORTEST_TIMEOUT,
        le=LONGEST_TIMEOUT,
        description="Seconds that the API may take to answer a call, 5 to 600. Default: 600 for a new batch and a "
        "live call, 30 for all others.",
    )

    @field_validator("workspace", "profile")
    @classmethod
    def _is_an_id(cls, text: str | None) -> str | None:
        if text is not None and not is_id(text):
            raise ValueError("give an id, which has letters, digits, _ and - only")
        return text


class RetentionConfig(ConfigBlock):
    """How long unneeded copies of requests and responses, and the history, are kept; by default without limit."""

    batches_days: float | None = Field(
        default=None, ge=0, description="Days after which a collected batch is deleted at the API."
    )
    request_files_days: float | None = Field(
        default=None, ge=0, description="Age in days from which a submission's request files are deleted."
    )
    history_days: float | None = Field(
        default=None,
        ge=0,
        description="Days after which the history of a submission that a later one replaced is deleted.",
    )


class BudgetConfig(ConfigBlock):
    """The most that a pipeline may spend in a period. Request files above it are held."""

    max_usd: float = Field(gt=0, le=MOST_USD, description="The cap in dollars.")
    per: Literal["run", "day", "month"] = Field(
        description="run (one submission with its retries), day or month. Days and months are in UTC."
    )
    hold: Literal["worst", "expected"] = Field(
        default="worst",
        description="worst: the most that a file can cost is reserved, and the cap is never passed. expected: "
        "what it would cost at the mean of the pipeline's answers, and the cap may be passed.",
    )

    @property
    def budget(self) -> Budget:
        """The budget, for the ledger."""
        return Budget(picodollars_of(Decimal(str(self.max_usd))), Period(self.per), Hold(self.hold))


class PilotConfig(ConfigBlock):
    """A small batch of random requests of each new prompt, whose answers are judged before the rest is sent."""

    rows: int = Field(ge=1, le=1000, description="The number of requests in the pilot.")
    then: Literal["go", "ask"] = Field(
        default="go",
        description="go: if the pilot is as expected, the rest is sent. ask: a user has to let it go in any case.",
    )


class SinkConfig(ConfigBlock):
    """A database table that gets a copy of complete results. Rows are inserted or updated by their key."""

    url_env: str | None = Field(
        default=None, description="Environment variable that holds the SQLAlchemy URL of the database."
    )
    url: str | None = Field(
        default=None, description="The URL itself, if it contains no password: duckdb:///answers.duckdb."
    )
    table: str | None = Field(
        default=None, description="Name of the table, or schema.table. Default: the pipeline's name."
    )

    @model_validator(mode="after")
    def _one_url(self) -> SinkConfig:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give url_env, the environment variable that holds the URL, or url")
        if self.url is not None:
            from batch_assets.core.io.database import (  # imports SQLAlchemy, so only if it is needed
                holds_secret,
                parse_url,
            )

            url = parse_url(self.url)
            if holds_secret(url):
                raise ValueError(
                    "the URL contains a password: put it into an environment variable and name that in url_env"
                )
        if self.url_env is not None:
            if not is_variable(self.url_env):
                raise ValueError("url_env takes the name of an environment variable; its value is the URL")
            check_not_credentials(self.url_env)
        return self


class LiveConfig(ConfigBlock):
    """How rows are asked by live calls."""

    max_in_flight: int = Field(default=8, ge=1, le=100, description="Maximum number of live calls at a time.")


class RescueConfig(ConfigBlock):
    """How rows are asked that have no answer when the deadline has passed."""

    live: LiveConfig = Field(description="Through the Messages API, at full price.")


KEEP_EVERYTHING = RetentionConfig()
