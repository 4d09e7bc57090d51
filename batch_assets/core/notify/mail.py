"""Messages by e-mail.

Dagster's own e-mails tell of failed runs only, and what sends them is private to it: the standard library does it.
"""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

from batch_assets.core.notify.sending import (
    TIMEOUT_SECONDS,
    Message,
    NotSentError,
    RefusedMessageError,
    secret,
    told,
)
from batch_assets.core.pipeline.notify import EmailConfig, NotifyConfig

_PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
# Whatever their code, they are about us and not about the message: another password or another day may do.
_NOT_LET_IN = (smtplib.SMTPConnectError, smtplib.SMTPHeloError, smtplib.SMTPAuthenticationError)


def send_email(config: NotifyConfig, message: Message) -> None:
    """Sends the message to all addresses."""
    assert config.email is not None
    url = secret(config.email.url_env)
    server = _server(url, config.email.url_env)
    try:
        with _connected(server) as connection:
            if server.username:
                connection.login(unquote(server.username), unquote(server.password or ""))
            refused = connection.send_message(_letter(config.email, message))
    except smtplib.SMTPRecipientsRefused as error:
        _refused(error.recipients, for_good=any(code >= 500 for code, _ in error.recipients.values()))
    except smtplib.SMTPResponseException as error:
        said = f"SMTP {error.smtp_code} {told(error, url)}"
        # Beginning with a 5 it is meant for good (RFC 5321, section 4.2.1).
        for_good = error.smtp_code >= 500 and not isinstance(error, _NOT_LET_IN)
        raise (RefusedMessageError if for_good else NotSentError)(said) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NotSentError(f"{type(error).__name__}: {told(error, url)}") from None
    else:
        if refused:
            _refused(refused, for_good=True)  # a second try would reach the others twice


def _server(url: str, variable: str) -> SplitResult:
    remedy = f"{variable} takes a URL such as smtps://user:password@host"
    try:
        server = urlsplit(url)
        _ = server.port
    except ValueError:
        raise NotSentError(remedy) from None
    if server.scheme not in _PORTS or not server.hostname:
        raise NotSentError(remedy)
    if server.username and server.scheme == "smtp":
        raise NotSentError(f"{variable} would send a password unencrypted: use smtps:// or smtp+starttls://")
    return server


def _connected(server: SplitResult) -> smtplib.SMTP:
    host, port = server.hostname or "", server.port or _PORTS[server.scheme]
    if server.scheme == "smtps":
        return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
    connection = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    if server.scheme == "smtp+starttls":
        try:
            connection.starttls(context=ssl.create_default_context())
        except BaseException:
            connection.close()
            raise
    return connection


def _letter(config: EmailConfig, message: Message) -> EmailMessage:
    letter = EmailMessage()
    letter["Subject"] = message.subject
    letter["From"] = config.sender
    letter["To"] = ", ".join(config.to)
    letter["Date"] = formatdate(message.sent_at)
    letter["Message-ID"] = f"<{message.id}@batch-assets>"  # who gets it twice can tell
    letter.set_content(message.text)
    return letter


def _refused(recipients: dict[str, tuple[int, bytes]], *, for_good: bool) -> NoReturn:
    said = ", ".join(f"{address} (SMTP {code})" for address, (code, _) in recipients.items())
    raise (RefusedMessageError if for_good else NotSentError)(f"the server refused {said}") from None
