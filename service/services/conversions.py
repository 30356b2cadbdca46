"""Conversions: a quote, taken."""

from collections.abc import Mapping
from typing import NamedTuple

import structlog

from service.domain.clock import utc_now
from service.domain.conversions import Conversion
from service.domain.idempotency import Answer, IdempotencyClaim
from service.domain.identifiers import Prefix, new_id
from service.domain.quotes import Quote
from service.ledger.committer import Ledger
from service.ledger.conversions import ConvertMoney
from service.repositories import records as record_repository
from service.repositories.records import RecordFilter
from service.services.orders import Requester

log = structlog.get_logger()


class ConversionOrder(NamedTuple):
    quote_id: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]


async def convert(
    ledger: Ledger, user: Requester, order: ConversionOrder, claim: IdempotencyClaim, request_id: str | None
) -> Answer:
    """Both wallets move and the quote is used up, or nothing happens.

    A refusal (quote_expired, quote_used, insufficient_funds, …) is an answer too. Raises what Ledger.execute raises.
    """
    # Before the quote is looked for, which takes time: what was asked for in time does not expire on the way.
    now = utc_now()
    # Only to know which wallets to name. Whether it may be taken, or is there at all, is the ledger's to say.
    quote = await record_repository.find_owned(order.quote_id, Quote, user.user_id)
    conversion_id = new_id(Prefix.CONVERSION)
    command = ConvertMoney(
        now=now,
        transaction_id=new_id(Prefix.TRANSACTION),
        request_id=request_id,
        claim=claim,
        user_id=user.user_id,
        token_version=user.token_version,
        conversion_id=conversion_id,
        currencies=() if quote is None else (quote.from_currency, quote.to_currency),
        out_entry_id=new_id(Prefix.ENTRY),
        in_entry_id=new_id(Prefix.ENTRY),
        **order._asdict(),
    )
    answer = await ledger.answer(command)
    log.info("conversion.answered", conversion_id=conversion_id, user_id=user.user_id, status=answer.status_code)
    return answer


async def list_conversions(
    user_id: str, wanted: RecordFilter, *, before_id: str | None, limit: int
) -> list[Conversion]:
    """Lists a user's conversions, newest first; `currency` is the one they gave."""
    return await record_repository.find_of_user(
        Prefix.CONVERSION, Conversion, user_id, wanted, before_id=before_id, limit=limit
    )
