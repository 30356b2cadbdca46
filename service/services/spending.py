"""Spending: what went out of a wallet, month by month and category by category."""

from typing import NamedTuple

from pymongo.errors import ExecutionTimeout

from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.spending import PAYING, RETURNING, MonthlySpending, add_up, months_from_to, start_of
from service.domain.wallets import Wallet
from service.errors import FieldError, InvalidFields, SearchTooLong, TooManyCategories, TotalOverflow
from service.repositories import transaction_logs as log_repository
from service.services.wallets import get_wallet

MONTHS_LIMIT = 24
# Months times categories times types of entries: about 500 KiB of JSON at the very most.
_SUMS_LIMIT = 5_000


class Spending(NamedTuple):
    wallet: Wallet
    months: list[MonthlySpending]


async def get_spending(wallet_id: str, user_id: str, from_month: str, to_month: str) -> Spending:
    """Adds up what was spent from the first month to the last one, both included; months are UTC's, as in 2026-01.

    Counted are WITHDRAWAL, TRANSFER_OUT, HOLD_CAPTURE and DEBIT, less WITHDRAWAL_REFUND and REVERSAL_IN, each in the
    month of its own entry. So a withdrawal counts when it is accepted and not again when the bank has paid; what is
    only held, exchanged into another currency or redeemed does not count.

    Raises NotFound where there is no such wallet or it is somebody else's; InvalidFields for months that will not
    do; TooManyCategories, TotalOverflow and SearchTooLong where the answer would go beyond its limits.
    """
    months = months_from_to(from_month, to_month)
    if not months:
        raise InvalidFields(fields=(FieldError("/query/to_month", "before_from_month", "Send a later month"),))
    if len(months) > MONTHS_LIMIT:
        problem = FieldError("/query/to_month", "too_many_months", f"Ask for at most {MONTHS_LIMIT} months")
        raise InvalidFields(fields=(problem,))
    wallet = await get_wallet(wallet_id, user_id)
    # The end first: what is added between the two questions lies behind both, or the range is empty.
    last_seq = await log_repository.find_seq_before(wallet_id, start_of(to_month, later=1))
    after_seq = await log_repository.find_seq_before(wallet_id, start_of(from_month))
    try:
        sums = await log_repository.sum_by_month(
            wallet_id,
            sorted(PAYING | RETURNING),
            after_seq=after_seq,
            last_seq=last_seq,
            limit=_SUMS_LIMIT + 1,
        )
    except ExecutionTimeout as error:
        raise SearchTooLong from error
    if len(sums) > _SUMS_LIMIT:
        raise TooManyCategories
    added_up = add_up(months, sums)
    # No part is larger than its whole, and what a month has paid and got back bounds what it has spent.
    if max(sum(m.total.paid for m in added_up), sum(m.total.returned for m in added_up)) > MAX_AMOUNT_MINOR:
        raise TotalOverflow
    return Spending(wallet, added_up)
