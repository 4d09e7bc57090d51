"""The `notify` block of a pipeline file: who is told of what. Secrets are named by their environment variables."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from typing import Literal

from pydantic import Field, field_validator, model_validator

from batch_assets.core.pipeline.block import ConfigBlock

Event = Literal["complete", "failed", "deadline"]
EVENTS: tuple[Event, ...] = ("complete", "failed", "deadline")
# Of a target's name, in the ledger.
_LONGEST = 200


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("give the name of an environment variable, not its value")
    return name


class WebhookConfig(ConfigBlock):
    """An HTTP endpoint that gets a signed JSON message."""

    url_env: str = Field(description="Environment variable that holds the URL.")
    secret_env: str = Field(description="Environment variable that holds the secret for signatures.")

    _are_variables = field_validator("url_env", "secret_env")(_variable)


class SlackConfig(ConfigBlock):
    """A channel of Slack, written to by a bot. Needs `pip install 'batch-assets[slack]'`."""

    token_env: str = Field(description="Environment variable that holds the bot's token.")
    channel: str = Field(min_length=1, description='The channel, such as "#data"; the bot must be a member.')
    base_url: str = Field(
        default="https://slack.com/api/", description="URL of Slack's API; set it for GovSlack or a gateway."
    )

    _is_variable = field_validator("token_env")(_variable)

    @model_validator(mode="after")
    def _is_installed(self) -> SlackConfig:
        if find_spec("dagster_slack") is None:
            raise ValueError("messages to Slack need dagster-slack: pip install 'batch-assets[slack]'")
        return self


class EmailConfig(ConfigBlock):
    """A message by e-mail, through an SMTP server."""

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
    # One that ends up in a header must not bring a header of its own.
    if not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+", text):
        raise ValueError(f"{text!r} is no address such as ada@example.com")
    return text


class NotifyConfig(ConfigBlock):
    """Who is told, one of webhook, slack and email, and of what."""

    webhook: WebhookConfig | None = Field(default=None, description="A URL that receives signed JSON.")
    slack: SlackConfig | None = Field(default=None, description="A Slack channel.")
    email: EmailConfig | None = Field(default=None, description="An e-mail.")
    events: list[Event] = Field(
        default=list(EVENTS),
        min_length=1,
        description="The events to report: complete (every row has its result), failed (in its place, when more "
        "rows than max_failed have no answer), deadline (a batch is close to a deadline). Default: all.",
    )

    @model_validator(mode="after")
    def _one_target(self) -> NotifyConfig:
        if sum(target is not None for target in (self.webhook, self.slack, self.email)) != 1:
            raise ValueError("give one of webhook, slack and email; each further one is an entry of its own")
        return self

    @property
    def target(self) -> str:
        """The target in words, which is also what the ledger knows it by. Nothing of it is secret."""
        if self.webhook is not None:
            said = f"webhook {self.webhook.url_env}"
        elif self.slack is not None:
            said = f"slack {self.slack.channel} ({self.slack.token_env})"
        else:
            assert self.email is not None
            said = f"email {', '.join(self.email.to)}"
        if len(said) > _LONGEST:
            digest = hashlib.sha256(said.encode()).hexdigest()[:16]
            said = f"{said[: _LONGEST - 20]}… {digest}"
        return said


def one_entry_a_target(entries: list[NotifyConfig]) -> list[NotifyConfig]:
    """The entries as they are.

    Errors:
        ValueError: two have the same target: it would be told twice.
    """
    seen = set[str]()
    for entry in entries:
        if entry.target in seen:
            raise ValueError(f"{entry.target} is there twice: list what it is told under `events` of one entry")
        seen.add(entry.target)
    return entries
