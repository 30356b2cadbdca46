"""Quotes: the price of a conversion, promised for a short time. They move nothing."""

from datetime import timedelta
from typing import NamedTuple

import structlog

from service.database import Client, run_in_transaction
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.money import MAX_AMOUNT_MINOR
from service.domain.policy import Policy
from service.domain.quotes import Quote, QuoteStatus, converted
from service.errors import AmountTooLarge, AmountTooSmall
from service.gateways.rates import Rates
from service.ledger.rules import require_offered
from service.repositories import records as record_repository
from service.settings import Settings

log = structlog.get_logger()


class QuoteOrder(NamedTuple):
    """So many minor units of the one currency are to become money of the other."""

    from_currency: str
    to_currency: str
    amount: int


async def make_quote(
    client: Client,
    rates: Rates,
    settings: Settings,
    policy: Policy,
    *,
    user_id: str,
    order: QuoteOrder,
    request_id: str | None,
) -> Quote:
    """Raises CurrencyNotOffered, RateUnavailable, AmountTooSmall, AmountTooLarge, Unavailable."""
    # What is in a currency that is no longer dealt in may be exchanged out of it, and nothing into it.
    from_currency, to_currency, amount = order
    require_offered(to_currency, policy)
    rate = await rates.rate(from_currency, to_currency)
    to_amount = converted(amount, from_currency, to_currency, rate, settings.fx_margin_bp)
    if to_amount == 0:
        raise AmountTooSmall(f"{amount} {from_currency} is worth less than 1 minor unit of {to_currency}")
    if to_amount > MAX_AMOUNT_MINOR:
        raise AmountTooLarge(f"{amount} {from_currency} is worth more {to_currency} than a wallet can hold")
    now = utc_now()
    quote = Quote(
        id=new_id(Prefix.QUOTE),
        user_id=user_id,
        from_currency=from_currency,
        to_currency=to_currency,
        amount=amount,
        to_amount=to_amount,
        rate=rate,
        margin_bp=settings.fx_margin_bp,
        status=QuoteStatus.OPEN,
        conversion_id=None,
        request_id=request_id,
        expires_at=now + timedelta(seconds=settings.quote_lifetime_s),
        created_at=now,
        updated_at=now,
    )
    # Not by the ledger: it would wait there among those who move money. Who asks is looked at when the money moves.
    await run_in_transaction(client, lambda session: record_repository.insert_many([quote], session=session))
    log.info("quote.made", quote_id=quote.id, user_id=user_id)
    return quote
