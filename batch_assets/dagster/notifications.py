"""Send the notices of pipelines, also to Slack: in the sensor and at the end of `batch-assets run`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from batch_assets.core.notify.delivery import (
    TIMEOUT_SECONDS,
    NoticeNotSentError,
    NoticeRefusedError,
    OutgoingNotice,
    error_text,
    secret,
)
from batch_assets.core.notify.notices import Noticed, send_notices
from batch_assets.core.pipeline.notify import NotifyConfig
from batch_assets.core.remedies import Stage
from batch_assets.core.root import Root
from batch_assets.dagster.pipelines import PipelineAssets

# Slack's error codes for passing problems. https://docs.slack.dev/reference/methods/chat.postMessage
_LATER = ("ratelimited", "rate_limited", "request_timeout", "service_unavailable", "internal_error", "fatal_error")
# Slack's error codes for a token that it does not accept. The user may set another token.
_NOT_LET_IN = ("invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive")


def notify(root: Root, pipelines: Mapping[str, PipelineAssets], *, announced_only: bool = True) -> list[str]:
    """Send the notices that are due. It never raises, so a problem does not stop the sensor or the run.

    Args:
        root: The root of the pipelines.
        pipelines: The pipelines by name.
        announced_only: See `send_notices`.

    Returns:
        A text for each notice that could not be sent, with the reason.
    """
    noticed = {
        name: Noticed(
            assets.pipeline,
            assets.stages[Stage.RESULTS].path if Stage.RESULTS in assets.stages else [name, "results"],
        )
        for name, assets in pipelines.items()
    }
    try:
        return send_notices(root, noticed, more={"slack": send_to_slack}, announced_only=announced_only)
    except Exception as error:
        return [f"notices could not be sent: {type(error).__name__}: {error_text(error)}"]


def send_to_slack(config: NotifyConfig, notice: OutgoingNotice) -> None:
    """Post a notice to a channel with Dagster's Slack resource.

    Raises:
        NoticeNotSentError: When it should be tried again later.
        NoticeRefusedError: When Slack refuses the notice permanently.
    """
    assert config.slack is not None
    token = secret(config.slack.token_env)
    from dagster_slack import SlackResource  # an extra
    from slack_sdk.errors import SlackApiError

    client = SlackResource(token=token).get_client()
    client.base_url = config.slack.base_url.rstrip("/") + "/"
    client.timeout = int(TIMEOUT_SECONDS)
    client.retry_handlers = []  # a later tick tries again
    try:
        client.chat_postMessage(
            channel=config.slack.channel, text=_escaped(notice.text), unfurl_links=False, unfurl_media=False
        )
    except SlackApiError as error:
        status, code = error.response.status_code, str(error.response.get("error") or "")
        is_slack = re.fullmatch(r"\w{1,80}", code) is not None  # else another server sent some page
        reason = f"HTTP {status} {code}" if is_slack else f"HTTP {status}, not a reply from Slack"
        if status == 429 or status >= 500 or code in (*_LATER, *_NOT_LET_IN) or not is_slack:
            raise NoticeNotSentError(reason) from None
        raise NoticeRefusedError(reason) from None
    except Exception as error:  # no connection, no answer, or an answer that is not from Slack
        raise NoticeNotSentError(f"{type(error).__name__}: {error_text(error, token)}") from None


def _escaped(text: str) -> str:
    """Escape a text. See https://docs.slack.dev/messaging/formatting-message-text#escaping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
