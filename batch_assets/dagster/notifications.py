"""Notices of pipelines, sent by the sensor and at the end of `batch-assets run`, to Slack as well."""

from __future__ import annotations

import re
from collections.abc import Mapping

from batch_assets.core.notify.notices import Noticed, send_notices
from batch_assets.core.notify.sending import (
    TIMEOUT_SECONDS,
    Message,
    MessageNotSentError,
    RefusedMessageError,
    error_text,
    secret,
)
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.root import Root
from batch_assets.dagster.pipelines import PipelineAssets

# What Slack answers when it cannot do it now. https://docs.slack.dev/reference/methods/chat.postMessage
_LATER = ("ratelimited", "rate_limited", "request_timeout", "service_unavailable", "internal_error", "fatal_error")
# What it answers to a token that it does not take: another one may do.
_NOT_LET_IN = ("invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive")


def notify(root: Root, pipelines: Mapping[str, PipelineAssets], *, announced_only: bool = True) -> list[str]:
    """Sends what is due of some pipelines. Nothing that goes wrong with it stops what else is done.

    Args:
        announced_only: see `send_notices`.

    Returns:
        What could not be sent, and why.
    """
    found = {
        name: Noticed(of.pipeline, of.stages["results"].path if "results" in of.stages else [name, "results"])
        for name, of in pipelines.items()
    }
    try:
        return send_notices(root, found, more={"slack": send_to_slack}, announced_only=announced_only)
    except Exception as error:
        return [f"messages could not be sent: {type(error).__name__}: {error_text(error)}"]


def send_to_slack(config: NotifyConfig, message: Message) -> None:
    """Posts the message into a channel, through Dagster's own resource for Slack."""
    assert config.slack is not None
    token = secret(config.slack.token_env)
    from dagster_slack import SlackResource  # an extra
    from slack_sdk.errors import SlackApiError

    client = SlackResource(token=token).get_client()
    client.base_url = config.slack.base_url.rstrip("/") + "/"
    client.timeout = int(TIMEOUT_SECONDS)
    client.retry_handlers = []  # who has to wait comes again later
    try:
        client.chat_postMessage(
            channel=config.slack.channel, text=_escaped(message.text), unfurl_links=False, unfurl_media=False
        )
    except SlackApiError as error:
        status, code = error.response.status_code, str(error.response.get("error") or "")
        is_slack = re.fullmatch(r"\w{1,80}", code) is not None  # else it is the page of whatever has answered
        why = f"HTTP {status} {code}" if is_slack else f"HTTP {status}, not as Slack answers"
        if status == 429 or status >= 500 or code in (*_LATER, *_NOT_LET_IN) or not is_slack:
            raise MessageNotSentError(why) from None
        raise RefusedMessageError(why) from None
    except Exception as error:  # no connection, no answer, or one that Slack would not give
        raise MessageNotSentError(f"{type(error).__name__}: {error_text(error, token)}") from None


def _escaped(text: str) -> str:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
