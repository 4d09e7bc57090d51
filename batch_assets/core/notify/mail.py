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

from batch_assets.core.notify.delivery import (
    TIMEOUT_SECONDS,
    NoticeNotSentError,
    NoticeRefusedError,
    OutgoingNotice,
    error_text,
    secret,
)
from batch_assets.core.pipeline.notify import EmailConfig, NotifyConfig

_PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
# Whatever their code, these refuse the login and not the notice. Another try may succeed, with another password
# or on another day.
_LOGIN_ERRORS = (smtplib.SMTPConnectError, smtplib.SMTPHeloError, smtplib.SMTPAuthenticationError)


def send_email(config: NotifyConfig, notice: OutgoingNotice) -> None:
    """Send the notice to all addresses.

    Raises:
        NoticeNotSentError: When another try may succeed.
        NoticeRefusedError: When the server refused the notice or a recipient permanently.
    """
    assert config.email is not None
    url = secret(config.email.url_env)
    server = _server(url, config.email.url_env)
    try:
        with _connected(server) as connection:
            if server.username:
                connection.login(unquote(server.username), unquote(server.password or ""))
            refused = connection.send_message(_letter(config.email, notice))
    except smtplib.SMTPRecipientsRefused as error:
        is_permanent = any(code >= 500 for code, _ in error.recipients.values())
        _raise_refused(error.recipients, is_permanent=is_permanent)
    except smtplib.SMTPResponseException as error:
        reason = f"SMTP {error.smtp_code} {error_text(error, url)}"
        # Codes from 500 on are permanent (RFC 5321, section 4.2.1).
        is_permanent = error.smtp_code >= 500 and not isinstance(error, _LOGIN_ERRORS)
        raise (NoticeRefusedError if is_permanent else NoticeNotSentError)(reason) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise NoticeNotSentError(f"{type(error).__name__}: {error_text(error, url)}") from None
    else:
        if refused:
            _raise_refused(refused, is_permanent=True)  # a second try would send the notice to the others twice


def _server(url: str, variable: str) -> SplitResult:
    remedy = f"{variable} is not valid: set it to a URL such as smtps://user:password@host"
    try:
        server = urlsplit(url)
        _ = server.port
    except ValueError:
        raise NoticeNotSentError(remedy) from None
    if server.scheme not in _PORTS or not server.hostname:
        raise NoticeNotSentError(remedy)
    if server.username and server.scheme == "smtp":
        raise NoticeNotSentError(f"{variable} would send a password unencrypted: use smtps:// or smtp+starttls://")
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


def _letter(config: EmailConfig, notice: OutgoingNotice) -> EmailMessage:
    letter = EmailMessage()
    letter["Subject"] = notice.subject
    letter["From"] = config.sender
    letter["To"] = ", ".join(config.to)
    letter["Date"] = formatdate(notice.sent_at)
    # The same at every try, so that a receiver can recognize a duplicate.
    letter["Message-ID"] = f"<{notice.id}@batch-assets>"
    letter.set_content(notice.text)
    return letter


def _raise_refused(recipients: dict[str, tuple[int, bytes]], *, is_permanent: bool) -> NoReturn:
    addresses = ", ".join(f"{address} (SMTP {code})" for address, (code, _) in recipients.items())
    error = NoticeRefusedError if is_permanent else NoticeNotSentError
    raise error(f"the server refused {addresses}") from None
