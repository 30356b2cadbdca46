"""Starting balances: real deposits, which the simulated bank pays at once, without a worker and without HTTP."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.idempotency import IdempotencyClaim
from service.domain.operations import Operation, OperationStatus
from service.errors import IdempotencyKeyReused, IllegalTransition
from service.gateways.bank import BankOrder, OrderKind
from service.gateways.bank_behaviours import paid_row
from service.gateways.simulated_bank import report_of
from service.ledger.committer import Ledger
from service.ledger.orders import NoteAttempt
from service.repositories import bank_orders as journal
from service.repositories import records as record_repository
from service.services.bank_reports import about, apply_report
from service.services.deposits import request_deposit
from service.services.orders import Order, Requester
from service.settings import Settings

log = structlog.get_logger()

# The simulated bank never declines an account that ends like this.
SOURCE: Final = "seed-account-success"
_ACCEPTED: Final = 202
# A client's key is forgotten after a week; a seed that is repeated next year must still change nothing.
NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)


class SeedFailed(Exception):
    """A deposit that should have succeeded did not; the message says why."""


class StartingBalance(NamedTuple):
    """`amount` in minor units."""

    user_id: str
    amount: int
    currency: str


async def deposit_once(balances: Sequence[StartingBalance], ledger: Ledger, settings: Settings) -> int:
    """Pays each balance in, once for each user and currency however often it is asked for; ready when all is settled.

    Side by side, so that they share the ledger's transactions. A run goes on where an earlier one was stopped,
    and a worker beside it may be faster at any step. Returns how many users keep another balance of an earlier run.
    """
    requested = await asyncio.gather(*(_request(balance, ledger, settings) for balance in balances))
    ids = [operation_id for operation_id in requested if operation_id is not None]
    unpaid = [operation for operation in await _deposits(ids) if operation.status is not OperationStatus.SUCCESS]
    if unpaid:
        await asyncio.gather(*(_begin(operation, ledger) for operation in unpaid))
        orders = await _pay(unpaid, settings)
        await asyncio.gather(
            *(apply_report(operation, report_of(orders[operation.id]), ledger) for operation in unpaid)
        )
        for operation in await _deposits([operation.id for operation in unpaid]):
            if operation.status is not OperationStatus.SUCCESS:
                raise SeedFailed(f"{operation.id} ended as {operation.status}: {operation.failure_message}")
    return len(balances) - len(ids)


async def _request(balance: StartingBalance, ledger: Ledger, settings: Settings) -> str | None:
    """The id of the deposit, new or of an earlier run; None where that run paid in another amount."""
    order = Order(balance.amount, balance.currency, SOURCE, "seed", "Starting balance", {})
    fingerprint = sha256(json.dumps(order).encode()).hexdigest()
    claim = IdempotencyClaim(f"{balance.user_id}:seed-{balance.currency}", fingerprint, NEVER)
    try:
        answer = await request_deposit(ledger, Requester(balance.user_id, None), order, claim, None, settings)
    except IdempotencyKeyReused:
        return None
    body = json.loads(answer.body)
    if answer.status_code != _ACCEPTED:
        raise SeedFailed(f"The deposit for {balance.user_id} was refused: {body['message']}")
    operation_id: str = body["id"]
    return operation_id


async def _deposits(ids: Sequence[str]) -> list[Operation]:
    return await record_repository.find_many(ids, Operation)


async def _begin(operation: Operation, ledger: Ledger) -> None:
    """Noted before the bank is asked, as by any worker: of what it was not asked for it is not believed anything."""
    try:
        await ledger.change(NoteAttempt(**about(operation)), Operation)
    except IllegalTransition as overtaken:
        log.info("seed.overtaken", operation_id=operation.id, status_now=overtaken.facts["status_now"])


async def _pay(operations: Sequence[Operation], settings: Settings) -> dict[str, dict[str, Any]]:
    """The bank's part: every order is in its journal and paid afterwards, each once.

    Orders enter the journal as paid, in one write. Those that a worker took there first are executed one by one.
    Who is stopped after this leaves payments whose operations are open: the next run or any worker asks the bank.
    """
    now = utc_now()
    orders = {operation.id: paid_row(_order_of(operation), now, settings) for operation in operations}
    for reference in await journal.insert_missing(list(orders.values())):
        await journal.execute_many([reference], utc_now())
        orders[reference] = await journal.get(reference)
    return orders


def _order_of(operation: Operation) -> BankOrder:
    return BankOrder(operation.id, OrderKind.COLLECTION, operation.amount, operation.currency, SOURCE)
