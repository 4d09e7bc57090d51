"""The `notify` block of a pipeline file: who is notified of what. Secrets are in environment variables."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from typing import Literal

from pydantic import Field, field_validator, model_validator

from batch_assets.core.config_block import ConfigBlock
from batch_assets.core.pipeline.variables import check_not_credentials, is_variable
from batch_assets.core.urls import secret_in

Event = Literal["complete", "failed", "deadline", "held", "budget"]
EVENTS: tuple[Event, ...] = ("complete", "failed", "deadline", "held", "budget")
# The most characters in a target's name in the ledger.
_LONGEST = 200


def _variable(name: str) -> str:
    if not is_variable(name):
        raise ValueError("give the name of an environment variable, not its value")
    return check_not_credentials(name)


class WebhookConfig(ConfigBlock):
    """An HTTP endpoint that gets a signed JSON notice."""

    url_env: str = Field(description="Environment variable that holds the URL.")
    secret_env: str = Field(description="Environment variable that holds the secret for signatures.")

    _are_variables = field_validator("url_env", "secret_env")(_variable)


class SlackConfig(ConfigBlock):
    """A Slack channel that a bot writes to. Needs `pip install 'batch-assets[slack]'`."""

    token_env: str = Field(description="Environment variable that holds the bot's token.")
    channel: str = Field(min_length=1, description='The channel, such as "#data"; the bot must be a member.')
    base_url: str = Field(
        default="https://slack.com/api/", description="URL of Slack's API; set it for GovSlack or a gateway."
    )

    _is_variable = field_validator("token_env")(_variable)

    @field_validator("base_url")
    @classmethod
    def _has_no_secret(cls, url: str) -> str:
        if (secret := secret_in(url)) is not None:
            raise ValueError(f"the URL contains {secret}: leave it out, because the token in token_env suffices")
        return url

    @model_validator(mode="after")
    def _is_installed(self) -> SlackConfig:
        if find_spec("dagster_slack") is None:
            raise ValueError("notices to Slack need dagster-slack: pip install 'batch-assets[slack]'")
        return self


class EmailConfig(ConfigBlock):
    """E-mail through an SMTP server."""

    to: list[str] = Field(min_length=1, description="The recipients' addresses.")
    sender: str = Field(description="The sender's address.")
    url_env: str = Field(
        description="Environment variable that holds the server's URL: smtps://user:password@host, "
        "smtp+starttls://… or, without encryption and password, smtp://host."
    )

    _is_variable = field_validator("url_env")(_variable)

    @field_validator("to")
    @classmethod
    def _are_addresses(cls, addresses: list[str]) -> list[str]:
        return [_address(address) for address in addresses]

    @field_validator("sender")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        return _address(address)


def _address(text: str) -> str:
    # An address becomes part of an e-mail header, so it must not be able to add another header.
    if not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+", text):
        raise ValueError(f"{text!r} is not an address such as ada@example.com")
    return text


class NotifyConfig(ConfigBlock):
    """Who is notified, through one of webhook, slack and email, and of which events."""

    webhook: WebhookConfig | None = Field(default=None, description="A URL that receives signed JSON.")
    slack: SlackConfig | None = Field(default=None, description="A Slack channel.")
    email: EmailConfig | None = Field(default=None, description="An e-mail.")
    events: list[Event] = Field(
        default=list(EVENTS),
        min_length=1,
        description="The events to report: complete (every row has its result), failed (in its place, when more "
        "rows than max_failed have no answer), deadline (a batch is close to a deadline), held (request files "
        "wait for approval or for money), budget (80 % of a budget is spent). Default: all.",
    )

    @model_validator(mode="after")
    def _one_target(self) -> NotifyConfig:
        if sum(target is not None for target in (self.webhook, self.slack, self.email)) != 1:
            raise ValueError("give one of webhook, slack and email; add an entry for each further one")
        return self

    @property
    def variables(self) -> list[str]:
        """The environment variables whose values go to the target."""
        if self.webhook is not None:
            return [self.webhook.url_env, self.webhook.secret_env]
        if self.slack is not None:
            return [self.slack.token_env]
        return [self.email.url_env] if self.email is not None else []

    @property
    def target(self) -> str:
        """The target as text, which is also its name in the ledger. Contains no secret."""
        if self.webhook is not None:
            name = f"webhook {self.webhook.url_env}"
        elif self.slack is not None:
            name = f"slack {self.slack.channel} ({self.slack.token_env})"
        else:
            assert self.email is not None
            name = f"email {', '.join(self.email.to)}"
        if len(name) > _LONGEST:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{name[: _LONGEST - 20]}… {digest}"
        return name


def one_entry_a_target(entries: list[NotifyConfig]) -> list[NotifyConfig]:
    """Return the entries unchanged, after checking that their targets differ.

    Raises:
        ValueError: When two entries have the same target, which would be notified twice.
    """
    targets = set[str]()
    for entry in entries:
        if entry.target in targets:
            raise ValueError(f"{entry.target} is listed twice: list all of its `events` in one entry")
        targets.add(entry.target)
    return entries
