"""Withdrawals: money out of a wallet, to an account at the bank."""

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.ledger.committer import Ledger
from service.ledger.orders import RequestWithdrawal
from service.services.orders import Order, Requester
from service.services.step_up import challenge_maker, new_challenge
from service.settings import Settings

log = structlog.get_logger()


async def request_withdrawal(
    ledger: Ledger,
    user: Requester,
    order: Order,
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
) -> Answer:
    """Sets the amount aside and leaves the order for the bank in the outbox; the same answer for the same key.

    Above a settable amount the bank hears of it only once a code has confirmed it.

    A refusal (insufficient_funds, wallet_frozen, …) is an answer too. Raises what Ledger.execute raises.
    """
    now = utc_now()
    withdrawal_id = new_id(Prefix.WITHDRAWAL)
    needs_code = ledger.policy.needs_step_up(order.amount, order.currency)
    decided = await ledger.execute(
        RequestWithdrawal(
            now=now,
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            operation_id=withdrawal_id,
            entry_id=new_id(Prefix.ENTRY),
            user_id=user.user_id,
            token_version=user.token_version,
            **order.sealed_for(withdrawal_id, settings),
            challenge=new_challenge(settings, withdrawal_id, now) if needs_code else None,
            make_challenge=challenge_maker(settings, withdrawal_id, now),
        )
    )
    if decided.record is not None:
        log.info("withdrawal.accepted", operation_id=decided.record.id, user_id=user.user_id)
    return decided.given
