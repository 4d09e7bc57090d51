"""The config of a run of `<name>/requests`, as the Launchpad shows it."""

from typing import Any

import dagster as dg
from pydantic import Field, field_validator

from batch_assets.core.requests.report import AskAgain

ALL = "all"
"""The limit of a run that sends all requests."""
JOB_FIELDS = {"plan": "plan", "retry_failed": "retry_failed", "refresh": "refresh"}
"""The field that each job of a pipeline sets, by the end of the job's name."""


class RequestsConfig(dg.Config):
    """Which requests this run sends; by default, all that have no answer yet."""

    # Dagster leaves a default of None out of the config that the Launchpad is filled with, and has no type for a
    # number or a word.
    limit: Any = Field(
        default=ALL,
        description=(
            "`all`, or a whole number: send at most this many of the requests that have no answer yet, the first "
            "ones, in each partition. "
            "The run reports about what they cost, and what the rest would. "
            "The other rows are pending until a run without a limit sends them; rows that failed permanently do "
            "not change. A refresh with a limit continues only with the next refresh: any other run keeps the "
            "answers that arrived and ends the refresh."
        ),
    )
    retry_failed: bool = Field(
        default=False, description="Send again the requests that failed permanently or used up their attempts."
    )
    refresh: bool = Field(
        default=False,
        description=(
            "Send answered requests again too. Without `confirm` the run only reports how many requests "
            "that is and about what they cost."
        ),
    )
    accept_rendering: bool = Field(
        default=False,
        description=(
            "After an upgrade that prints values of the dataset in another way: send answered rows again that "
            "render differently. Without it the run fails, sends nothing, and says how many rows and the cost."
        ),
    )
    plan: bool = Field(
        default=False, description="Only report what a run would send and what it would cost. Nothing is sent."
    )
    confirm: bool = Field(
        default=False, description="The cost is known: send a refresh, or more than `confirm_above`."
    )

    @field_validator("limit")
    @classmethod
    def _check_limit(cls, limit: Any) -> Any:
        if limit is None or limit == ALL or (type(limit) is int and limit >= 1):
            return limit
        raise ValueError(f"{limit!r} is no limit: write a whole number from 1 on, or `{ALL}`")

    @property
    def ask_again(self) -> AskAgain:
        """The config as the core takes it."""
        limit = None if self.limit == ALL else self.limit
        return AskAgain(self.retry_failed, self.refresh, limit, self.accept_rendering)

    @property
    def only_plans(self) -> bool:
        """Whether the run only reports what it would send: that is asked for, or a refresh is not confirmed."""
        return self.plan or (self.refresh and not self.confirm)

    def check_job(self, job: str, pipeline: str) -> None:
        """Check that a run of one of the pipeline's jobs has the field that the job is for.

        A config that a user gives replaces the config of the job as a whole.

        Args:
            job: The name of the run's job.
            pipeline: The name of the pipeline.

        Raises:
            dg.Failure: When the field is missing. Names it.
        """
        field = JOB_FIELDS.get(job.removeprefix(f"{pipeline}_")) if job.startswith(f"{pipeline}_") else None
        if field is not None and not getattr(self, field):
            raise dg.Failure(
                description=f"the config of this run has no `{field}: true`, which is what the job {job} is for. "
                "Nothing was done. A config replaces that of the job as a whole: give the line "
                f"`{field}: true` with the others",
                allow_retries=False,
            )
