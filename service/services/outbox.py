"""What is due in the outbox, topic by topic. Whatever it leads to is safe to repeat, and ends its own row."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, assert_never

import structlog

from service.crash_points import CrashPoint, reach
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix
from service.domain.outbox import MAIL_TOPICS as MAIL_TOPICS  # noqa: PLC0414 workers name it
from service.domain.outbox import OutboxRow, OutboxTopic
from service.gateways.mailbox import MailboxUnavailable
from service.repositories import outbox as outbox_repository
from service.services import factor_changes, holds, leases, returns, webhook_endpoints
from service.services.approvals import lapse_payment, send_code
from service.services.mail_limits import MailHeldBack
from service.services.password_changes import send_notice, send_reset_token
from service.services.registrations import send_proof_mail
from service.services.rewards import earn_points
from service.services.settlement import Desk, pursue_order
from service.settings import Settings
from service.tracing import continued

log = structlog.get_logger()

# Three queues, each with hands of its own: a bank that hangs keeps no code from being sent, a mail server that hangs
# keeps no hold from ending, and no number of rewards stands before an order.
BANK_TOPICS: Final = (OutboxTopic.BANK_ORDER,)
OTHER_TOPICS: Final = tuple(topic for topic in OutboxTopic if topic not in (*BANK_TOPICS, *MAIL_TOPICS))
_HELD_BACK_SPREAD_S: Final = 60.0


async def claim_rows(limit: int, settings: Settings, topics: Sequence[OutboxTopic]) -> list[OutboxRow]:
    """Rows that are due, for as long as an answer of the bank, or of the mail server, is waited for."""
    if topics is MAIL_TOPICS:
        return await outbox_repository.claim(
            now=utc_now(), lease_s=leases.mails_s(settings), limit=limit, topics=topics
        )
    return await outbox_repository.claim(now=utc_now(), lease_s=leases.orders_s(settings), limit=limit, topics=topics)


async def pursue_row(row: OutboxRow, desk: Desk) -> None:
    """Until its row is deleted in the transaction that ends the matter, it falls due again and again."""
    reach(CrashPoint.OUTBOX_CLAIMED)
    structlog.contextvars.bind_contextvars(request_id=row.request_id)
    facts = {"wallet.operation_id": row.subject_id, "wallet.topic": row.topic.value, "wallet.attempt": row.attempts}
    with continued(row.traceparent, "outbox.visit", "consumer", facts):
        await _pursue(row, desk)


async def _pursue(row: OutboxRow, desk: Desk) -> None:
    match row.topic:
        case OutboxTopic.BANK_ORDER:
            await pursue_order(row, desk)
        case OutboxTopic.EXPIRY:
            await _end_in_time(row, desk)
        case OutboxTopic.REWARD:
            await earn_points(row, desk.ledger, desk.client)
        case (
            OutboxTopic.APPROVAL_CODE
            | OutboxTopic.PASSWORD_RESET
            | OutboxTopic.EMAIL_PROOF
            | OutboxTopic.PASSWORD_NOTICE
            | OutboxTopic.FACTOR_CODE
            | OutboxTopic.FACTOR_NOTICE
            | OutboxTopic.WEBHOOK_NOTICE
            | OutboxTopic.OWED_NOTICE
            | OutboxTopic.HOLD_NOTICE
        ):
            await _mail_within_limits(row, desk)
        case _:
            assert_never(row.topic)


async def _mail_within_limits(row: OutboxRow, desk: Desk) -> None:
    """A mail beyond the address's bound waits until there is room, and loses nothing by it."""
    if desk.mail_limits is not None:
        desk = desk._replace(mailbox=desk.mail_limits.around(desk.mailbox, row.topic))
    try:
        async with _mailing(desk.settings):
            await _mail(row, desk)
    except MailHeldBack as held:
        log.warning("mail.held_back", topic=row.topic.value, outbox_id=row.id, wait_s=round(held.wait_s))
        # Spread out, so that not all that wait ask again at once.
        wait_s = held.wait_s + random.uniform(0, _HELD_BACK_SPREAD_S)  # noqa: S311 no secret
        await outbox_repository.put_back(row, utc_now() + timedelta(seconds=wait_s), "held_back")


async def _mail(row: OutboxRow, desk: Desk) -> None:
    match row.topic:
        case OutboxTopic.APPROVAL_CODE:
            await send_code(row, desk.mailbox, desk.settings)
        case OutboxTopic.PASSWORD_RESET:
            await send_reset_token(row, desk.client, desk.mailbox, desk.settings)
        case OutboxTopic.EMAIL_PROOF:
            await send_proof_mail(row, desk.client, desk.mailbox, desk.settings)
        case OutboxTopic.PASSWORD_NOTICE:
            await send_notice(row, desk.mailbox)
        case OutboxTopic.FACTOR_CODE:
            await factor_changes.send_code(row, desk.mailbox, desk.settings)
        case OutboxTopic.FACTOR_NOTICE:
            await factor_changes.send_notice(row, desk.mailbox)
        case OutboxTopic.WEBHOOK_NOTICE:
            await webhook_endpoints.send_notice(row, desk.mailbox)
        case OutboxTopic.OWED_NOTICE:
            await returns.send_notice(row, desk.mailbox)
        case OutboxTopic.HOLD_NOTICE:
            await holds.send_notice(row, desk.mailbox)
        case _:
            raise ValueError(f"{row.topic} is no mail")


@asynccontextmanager
async def _mailing(settings: Settings) -> AsyncIterator[None]:
    """A mail server that hangs must not keep a hand of the worker busy for ever: it is as good as away."""
    try:
        async with asyncio.timeout(settings.mail_patience_s):
            yield
    except TimeoutError as silence:
        raise MailboxUnavailable("the mail was not taken in time") from silence


async def _end_in_time(row: OutboxRow, desk: Desk) -> None:
    """Ends what holds money for a time only; the subject's prefix tells what it is."""
    match row.subject_id.partition("_")[0]:
        case Prefix.HOLD:
            await holds.expire_hold(row, desk.ledger)
        case _:
            await lapse_payment(row, desk.ledger)
