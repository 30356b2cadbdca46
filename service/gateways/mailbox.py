"""Mail to people: a protocol of one call, and a file that takes the mails where there is no mail server."""

import asyncio
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson
import structlog

from service.settings import Environment, Settings

log = structlog.get_logger()

# Codes stand in the mails: they are for the owner's eyes only.
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


class Mail(NamedTuple):
    """`id` is the same for the same mail however often it is sent, so that a repeated delivery can be recognised."""

    id: str
    to: str
    subject: str
    text: str


class MailboxUnavailable(Exception):
    """The mail was not taken, or it is not known whether it was: send it again, under the same id."""


class MailRefused(Exception):
    """The mail server refuses this mail for good (RFC 5321, 5xx): sending it again would change nothing.

    Its text is not kept: servers quote addresses in it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


class Mailbox(Protocol):
    async def send(self, message: Mail) -> None:
        """Hands in a mail, or the same again. Raises MailboxUnavailable, MailRefused."""
        ...


class FileMailbox:
    """One JSON line for each mail, at the end of a file that several processes may write to.

    In development the log shows the mail as well; in production it shows no more than that there was one.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.mailbox_path)
        self._shows_text = settings.env is Environment.DEVELOPMENT

    async def send(self, message: Mail) -> None:
        line = orjson.dumps(message._asdict(), option=orjson.OPT_APPEND_NEWLINE)
        try:
            await asyncio.to_thread(_append, self._path, line)
        except OSError as error:
            raise MailboxUnavailable(repr(error)) from error
        if self._shows_text:
            log.info("mailbox.sent", mail_id=message.id, to=message.to, subject=message.subject, text=message.text)
        else:
            log.info("mailbox.sent", mail_id=message.id)


def _append(path: Path, line: bytes) -> None:
    """In a single write: with O_APPEND the system puts it at the end, whoever else is writing."""
    path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        written = os.write(file, line)
    finally:
        os.close(file)
    if written != len(line):
        raise OSError(f"wrote {written} of {len(line)} bytes: is the disk full?")
