"""The one bound on mails: so many an hour to an address, of each kind. What is beyond waits; no mail is dropped here.

Kinds have bounds of their own, so that many mails of one kind, which a thief can call for, hide none of another: codes
and tokens that somebody waits for, news of the password and the second factor, and all other news.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from limits import RateLimitItemPerHour

from service.domain.keys import KeyPurpose, derive_key
from service.domain.outbox import OutboxTopic
from service.gateways.mailbox import Mail, Mailbox
from service.gateways.rate_limits import RateLimits, claim
from service.settings import Settings

KIND_OF_MAIL: Final[Mapping[OutboxTopic, str]] = MappingProxyType(
    {
        OutboxTopic.APPROVAL_CODE: "codes",
        OutboxTopic.FACTOR_CODE: "codes",
        OutboxTopic.PASSWORD_RESET: "resets",
        OutboxTopic.EMAIL_PROOF: "registrations",
        OutboxTopic.PASSWORD_NOTICE: "security",
        OutboxTopic.FACTOR_NOTICE: "security",
        OutboxTopic.WEBHOOK_NOTICE: "news",
        OutboxTopic.OWED_NOTICE: "news",
        OutboxTopic.HOLD_NOTICE: "news",
    }
)
_REMEMBERED = 10_000


class MailHeldBack(Exception):
    """The address got as many mails of this kind as it may in an hour."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"{wait_s:.0f} s")
        self.wait_s = wait_s


class MailLimits:
    """One for each worker."""

    def __init__(self, rate_limits: RateLimits, settings: Settings) -> None:
        self._rate_limits = rate_limits
        self._per_hour = settings.mails_per_hour
        self._key = derive_key(settings.root_key, KeyPurpose.REDIS_KEYS)
        # Ids of mails that were counted, oldest first: a mail server that is away must not use up the bound.
        self._counted: dict[str, None] = {}

    def around(self, mailbox: Mailbox, topic: OutboxTopic) -> Mailbox:
        return _BoundedMailbox(self, mailbox, KIND_OF_MAIL[topic])

    async def count(self, mail_id: str, kind: str, address: str) -> None:
        """Raises MailHeldBack."""
        if not self._per_hour or mail_id in self._counted:
            return
        limit = RateLimitItemPerHour(self._per_hour, namespace=f"mails-{kind}")
        whose = hashlib.blake2b(address.encode(), key=self._key, digest_size=16).hexdigest()
        standing = await self._rate_limits.take([claim(limit, whose)])
        if not standing.is_granted:
            raise MailHeldBack(standing.reset_in_s)
        self._counted[mail_id] = None
        if len(self._counted) > _REMEMBERED:
            del self._counted[next(iter(self._counted))]


class _BoundedMailbox:
    def __init__(self, limits: MailLimits, mailbox: Mailbox, kind: str) -> None:
        self._limits, self._mailbox, self._kind = limits, mailbox, kind

    async def send(self, message: Mail) -> None:
        await self._limits.count(message.id, self._kind, message.to)
        await self._mailbox.send(message)
