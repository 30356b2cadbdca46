"""Transfers: money from one person's wallet to another's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.transfers import Transfer
from service.ledger.committer import Ledger
from service.ledger.transfers import RequestTransfer, TransferBatch
from service.repositories import records as record_repository
from service.repositories.records import RecordFilter
from service.services.login_guard import LoginGuard
from service.services.orders import Requester
from service.services.step_up import challenge_maker, new_challenge
from service.services.users import find_user_ids
from service.settings import Settings
from service.turns import Turns

log = structlog.get_logger()


class TransferOrder(NamedTuple):
    """To a wallet or, where that is None, to whoever has that e-mail address. `amount` in minor units."""

    wallet_id: str
    to_wallet_id: str | None
    to_email: str | None
    amount: int
    currency: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]


async def request_transfer(
    ledger: Ledger,
    user: Requester,
    order: TransferOrder,
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
    guard: LoginGuard,
) -> Answer:
    """Both sides or neither; above a settable amount it waits for a code, and the funds are held meanwhile.

    A refusal is an answer too. Raises what Ledger.execute raises.
    """
    (command,) = await _commands(user, [order], request_id, settings, ledger, guard, claim=claim)
    answer = await ledger.answer(command)
    log.info("transfer.answered", transfer_id=command.transfer_id, user_id=user.user_id, status=answer.status_code)
    return answer


async def request_transfers(
    ledger: Ledger,
    user: Requester,
    orders: Sequence[TransferOrder],
    claim: IdempotencyClaim,
    request_id: str | None,
    settings: Settings,
    guard: LoginGuard,
    *,
    is_all_or_nothing: bool,
) -> Answer:
    """Many under one key, in the order given, in one transaction; a result for each."""
    batch_id = new_id(Prefix.TRANSFER_BATCH)
    commands = await _commands(user, orders, request_id, settings, ledger, guard, batch_id=batch_id)
    batch = TransferBatch(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        claim=claim,
        parts=commands,
        is_all_or_nothing=is_all_or_nothing,
        batch_id=batch_id,
    )
    answer = await ledger.answer(batch)
    log.info("transfers.answered", batch_id=batch_id, user_id=user.user_id, size=len(orders), status=answer.status_code)
    return answer


async def _find_recipients(user_id: str, emails: set[str], guard: LoginGuard) -> dict[str, str]:
    """Finds who can be paid at these addresses. Raises TooManyAttempts for a user who has missed too often."""
    attempt = await guard.begin_look_up(user_id, len(emails))
    found = await find_user_ids(emails)
    await guard.end_look_up(attempt, user_id, len(emails) - len(found))
    return found


async def _commands(
    user: Requester,
    orders: Sequence[TransferOrder],
    request_id: str | None,
    settings: Settings,
    ledger: Ledger,
    guard: LoginGuard,
    *,
    claim: IdempotencyClaim | None = None,
    batch_id: str | None = None,
) -> list[RequestTransfer]:
    emails = {order.to_email for order in orders if order.to_email is not None}
    user_ids = await _find_recipients(user.user_id, emails, guard) if emails else {}
    now = utc_now()
    commands = []
    turns = Turns()
    for order in orders:
        await turns.rest()
        transfer_id = new_id(Prefix.TRANSFER)
        needs_code = ledger.policy.needs_step_up(order.amount, order.currency)
        commands.append(
            RequestTransfer(
                now=now,
                transaction_id=new_id(Prefix.TRANSACTION),
                request_id=request_id,
                claim=claim,
                user_id=user.user_id,
                token_version=user.token_version,
                transfer_id=transfer_id,
                wallet_id=order.wallet_id,
                to_wallet_id=order.to_wallet_id,
                to_user_id=None if order.to_email is None else user_ids.get(order.to_email),
                amount=order.amount,
                currency=order.currency,
                category=order.category,
                description=order.description,
                metadata=order.metadata,
                out_entry_id=new_id(Prefix.ENTRY),
                in_entry_id=new_id(Prefix.ENTRY),
                batch_id=batch_id,
                challenge=new_challenge(settings, transfer_id, now) if needs_code else None,
                make_challenge=challenge_maker(settings, transfer_id, now),
            )
        )
    return commands


async def list_transfers(user_id: str, wanted: RecordFilter, *, before_id: str | None, limit: int) -> list[Transfer]:
    """Lists those that the user sent, newest first; what they got stands in their wallets' history."""
    return await record_repository.find_of_user(
        Prefix.TRANSFER, Transfer, user_id, wanted, before_id=before_id, limit=limit
    )
