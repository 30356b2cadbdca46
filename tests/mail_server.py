"""A real SMTP server on this machine, which takes mails, or answers as a test tells it to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Taken(NamedTuple):
    sender: str
    recipients: list[str]
    letter: EmailMessage
    is_encrypted: bool


class MailServer:
    """`answers` stand before "250 OK", by the command that they answer (RCPT or DATA), one for each time."""

    def __init__(self) -> None:
        self.port = 0
        self.taken: list[Taken] = []
        self.answers: dict[str, list[str]] = {"RCPT": [], "DATA": []}
        # Each connection is made, and nothing is said on it.
        self.is_silent = False
        self.logins: list[tuple[bytes, bytes]] = []

    def mails_to(self, address: str) -> list[EmailMessage]:
        return [mail.letter for mail in self.taken if mail.recipients == [address]]

    async def handle_RCPT(  # noqa: N802 aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        del server, session, options
        if self.answers["RCPT"]:
            return self.answers["RCPT"].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 aiosmtpd's name
        del server
        if self.answers["DATA"]:
            return self.answers["DATA"].pop(0)
        content, sender = envelope.content, envelope.mail_from
        assert isinstance(content, bytes)
        letter = message_from_bytes(content, policy=default)
        assert isinstance(letter, EmailMessage)
        self.taken.append(Taken(sender or "", envelope.rcpt_tos, letter, session.ssl is not None))
        return "250 OK"

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        del server, session, envelope, mechanism
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)


@asynccontextmanager
async def running_mail_server(
    tls: ssl.SSLContext | None = None, *, from_the_first_byte: bool = False
) -> AsyncIterator[MailServer]:
    """With a context it offers STARTTLS, and takes nothing before it; or it is encrypted from the first byte."""
    mails, loop = MailServer(), asyncio.get_running_loop()
    offered = None if from_the_first_byte else tls
    made: list[asyncio.BaseTransport] = []

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    def protocol() -> asyncio.Protocol:
        if mails.is_silent:
            return Silent()
        return SMTP(
            mails,
            hostname="mail.example",
            tls_context=offered,
            require_starttls=offered is not None,
            authenticator=mails.authenticate if offered is not None else None,
            enable_SMTPUTF8=True,
            loop=loop,
        )

    factory: Callable[[], asyncio.Protocol] = protocol
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls if from_the_first_byte else None)
    mails.port = server.sockets[0].getsockname()[1]
    try:
        yield mails
    finally:
        for transport in made:
            transport.close()
        server.close()
        await server.wait_closed()
