"""Deposits: money into a wallet, from an account at the bank."""

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.ledger.committer import Ledger
from service.ledger.orders import RequestDeposit
from service.services.orders import Order, Requester
from service.settings import Settings

log = structlog.get_logger()


async def request_deposit(
    ledger: Ledger,
    user: Requester,
    order: Order,
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
) -> Answer:
    """Leaves the order for the bank in the outbox; the wallet moves when the bank has collected the money.

    A refusal (no_wallet_in_currency, wallet_frozen, …) is an answer too. Raises what Ledger.execute raises.
    """
    deposit_id = new_id(Prefix.DEPOSIT)
    decided = await ledger.execute(
        RequestDeposit(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            request_id=request_id,
            claim=claim,
            operation_id=deposit_id,
            user_id=user.user_id,
            token_version=user.token_version,
            **order.sealed_for(deposit_id, settings),
        )
    )
    if decided.record is not None:
        log.info("deposit.accepted", operation_id=decided.record.id, user_id=user.user_id)
    return decided.given
