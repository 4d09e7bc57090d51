"""Send notifications by email, with the standard library.

Dagster's own emails only report failed runs, and its function that sends them is private.
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
    MessageNotSentError,
    RefusedMessageError,
    error_text,
    secret,
)
from batch_assets.core.pipeline.notify import EmailConfig, NotifyConfig

_PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
# Whatever their code, these refuse the login and not the message. Another try may succeed, with another password
# or on another day.
_LOGIN_ERRORS = (smtplib.SMTPConnectError, smtplib.SMTPHeloError, smtplib.SMTPAuthenticationError)


def send_email(config: NotifyConfig, message: Message) -> None:
    """Send the message to all addresses.

    Raises:
        MessageNotSentError: When another try may succeed.
        RefusedMessageError: When the server refused the message or a recipient permanently.
    """
    assert config.email is not None
    url = secret(config.email.url_env)
    server = _server(url, config.email.url_env)
    try:
        with _connected(server) as connection:
            if server.username:
                connection.login(unquote(server.username), unquote(server.password or ""))
            refused = connection.send_message(_letter(config.email, message))
    except smtplib.SMTPRecipientsRefused as error:
        is_permanent = any(code >= 500 for code, _ in error.recipients.values())
        _raise_refused(error.recipients, is_permanent=is_permanent)
    except smtplib.SMTPResponseException as error:
        reason = f"SMTP {error.smtp_code} {error_text(error, url)}"
        # Codes from 500 on are permanent (RFC 5321, section 4.2.1).
        is_permanent = error.smtp_code >= 500 and not isinstance(error, _LOGIN_ERRORS)
        raise (RefusedMessageError if is_permanent else MessageNotSentError)(reason) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise MessageNotSentError(f"{type(error).__name__}: {error_text(error, url)}") from None
    else:
        if refused:
            _raise_refused(refused, is_permanent=True)  # a second try would send the message to the others twice


def _server(url: str, variable: str) -> SplitResult:
    remedy = f"{variable} is not valid: set it to a URL such as smtps://user:password@host"
    try:
        server = urlsplit(url)
        _ = server.port
    except ValueError:
        raise MessageNotSentError(remedy) from None
    if server.scheme not in _PORTS or not server.hostname:
        raise MessageNotSentError(remedy)
    if server.username and server.scheme == "smtp":
        raise MessageNotSentError(
            f"{variable} would send a password unencrypted: use smtps:// or smtp+starttls://"
        )
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
    # The same at every try, so that a receiver can recognize a duplicate.
    letter["Message-ID"] = f"<{message.id}@batch-assets>"
    letter.set_content(message.text)
    return letter


def _raise_refused(recipients: dict[str, tuple[int, bytes]], *, is_permanent: bool) -> NoReturn:
    addresses = ", ".join(f"{address} (SMTP {code})" for address, (code, _) in recipients.items())
    error = RefusedMessageError if is_permanent else MessageNotSentError
    raise error(f"the server refused {addresses}") from None
