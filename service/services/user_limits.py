"""What a user sets for the limits of all of their wallets."""

import structlog

from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.user_limits import UserLimits, user_limits_id
from service.ledger.audit_events import Unchanged
from service.ledger.committer import Ledger
from service.ledger.user_limits import SetTimeZone
from service.repositories import records as record_repository
from service.services.orders import Requester

log = structlog.get_logger()


async def get_time_zone(user_id: str) -> str | None:
    """The one that the user has set; None where each wallet has that of its currency."""
    known = await record_repository.find(user_limits_id(user_id), UserLimits)
    return None if known is None else known.time_zone


async def set_time_zone(ledger: Ledger, user: Requester, time_zone: str | None, request_id: str | None) -> None:
    """For all of the user's wallets, from the next payment on. Repeating it is harmless.

    Raises AccountDeactivated, Unauthenticated, and what Ledger.execute raises.
    """
    command = SetTimeZone(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        user_id=user.user_id,
        token_version=user.token_version,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=None,
        time_zone=time_zone,
    )
    try:
        await ledger.execute(command)
    except Unchanged:
        log.info("user.time_zone_unchanged", user_id=user.user_id)
    else:
        log.info("user.time_zone_set", user_id=user.user_id, time_zone=time_zone)
