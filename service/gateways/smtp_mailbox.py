"""Mail by SMTP: each mail over a connection of its own, encrypted, to one recipient.

A mail may arrive twice, under one Message-ID, where the server's word that it has it got lost; it is never taken for
sent without that word.
"""

import asyncio
import re
import ssl
from contextlib import suppress
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from hashlib import sha256

import aiosmtplib
import certifi
import idna
import structlog

from service import metrics
from service.domain.clock import utc_now
from service.gateways.mailbox import Mail, MailboxUnavailable, MailRefused
from service.settings import Settings

log = structlog.get_logger()

# From here on a refusal is for good (RFC 5321, section 4.2.1).
_PERMANENT = 500
# What the server would say to an address that is none, or that it cannot write to.
_NO_ADDRESS, _NO_UNICODE = 553, 550
# It has the mail by then: whether it says good-bye too does not matter.
_GOODBYE_S = 1.0
# Nothing that could end a header or a command, or make two addresses of one.
_ADDRESS = re.compile(
    r'[^\s\x00-\x1f\x7f-\x9f\u2028\u2029<>()\[\]\\,;:"@]{1,64}@[^\s\x00-\x1f\x7f-\x9f<>()\[\]\\,;:"@]{1,253}'
)


class SmtpMailbox:
    def __init__(self, settings: Settings) -> None:
        """Raises OSError where the file of certificates cannot be read."""
        assert settings.mail_host is not None, "settings see to it"  # noqa: S101 a defect of ours
        password = settings.mail_password
        # The server's name has to stand in its certificate, and somebody who is trusted has to have signed that.
        context = None if settings.mail_tls == "none" else ssl.create_default_context(cafile=certifi.where())
        if context is not None and settings.mail_ca_file is not None:
            context.load_verify_locations(cafile=settings.mail_ca_file)
        self._sender, self._domain = settings.mail_from, settings.mail_from.rpartition("@")[2]
        self._how = {
            "hostname": settings.mail_host,
            "port": settings.mail_port,
            "username": settings.mail_user,
            "password": None if password is None else password.get_secret_value(),
            # The name of this machine is nobody's business.
            "local_hostname": self._domain,
            "timeout": settings.mail_timeout_s,
            "use_tls": settings.mail_tls == "tls",
            # True: a server that does not offer it is told nothing.
            "start_tls": settings.mail_tls == "starttls",
            "tls_context": context,
        }

    async def send(self, message: Mail) -> None:
        """Raises MailboxUnavailable, MailRefused."""
        recipient = _checked_recipient(message.to)
        letter = self._compose(message, recipient)
        client = aiosmtplib.SMTP(**self._how)  # type: ignore[arg-type]  # names and values are those above
        try:
            await client.connect()
            await client.send_message(letter, sender=self._sender, recipients=[recipient])
            metrics.mail_ended("sent")
            log.info("mailbox.sent", mail_id=message.id)
            with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await client.quit()
        except (aiosmtplib.SMTPException, OSError) as error:
            # Without the server's text, which would name the recipient in the log.
            raise _translated(error, message) from None
        finally:
            client.close()

    def _compose(self, message: Mail, recipient: str) -> EmailMessage:
        letter = EmailMessage(policy=SMTP_POLICY)
        try:
            letter["From"] = Address(addr_spec=self._sender)
            local, _, domain = recipient.rpartition("@")
            letter["To"] = Address(username=local, domain=domain)
            # Raises where a line ends in it.
            letter["Subject"] = message.subject
        except (ValueError, MessageError):
            metrics.mail_ended("refused")
            log.warning("mailbox.refused", mail_id=message.id, code=_NO_ADDRESS)
            raise MailRefused(_NO_ADDRESS) from None
        letter["Date"] = format_datetime(utc_now())
        # The same for the same mail: whoever gets it twice sees that it is one.
        letter["Message-ID"] = f"<{sha256(message.id.encode()).hexdigest()[:40]}@{self._domain}>"
        # RFC 3834: no machine answers it.
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(message.text)
        return letter


def _checked_recipient(address: str) -> str:
    """Its domain as the DNS spells it, which every server takes. Raises MailRefused for what is no single address."""
    if _ADDRESS.fullmatch(address) is None:
        raise MailRefused(_NO_ADDRESS)
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError:
        raise MailRefused(_NO_ADDRESS) from None


def _translated(error: Exception, message: Mail) -> Exception:
    """What of it is this mail's fate, and what is the server's state, or a setting of ours, which can be mended."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPRecipientRefused | aiosmtplib.SMTPDataError) and error.code >= _PERMANENT:
        metrics.mail_ended("refused")
        log.warning("mailbox.refused", mail_id=message.id, code=error.code)
        return MailRefused(error.code)
    if isinstance(error, aiosmtplib.SMTPNotSupported) and not message.to.isascii():
        metrics.mail_ended("refused")
        log.warning("mailbox.refused", mail_id=message.id, code=_NO_UNICODE)
        return MailRefused(_NO_UNICODE)
    code = getattr(error, "code", None)
    is_ours = isinstance(code, int) and code >= _PERMANENT
    metrics.mail_ended("unavailable")
    # Of a text of the server's, which may quote anything, nothing is shown.
    (log.error if is_ours else log.warning)("mailbox.unavailable", error=type(error).__name__, code=code)
    return MailboxUnavailable(f"{type(error).__name__} {code or ''}".strip())
