"""Conversions: two linked entries in two currencies, with the house's exchange on the other side of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.domain.accounts import SystemAccount
from service.domain.conversions import Conversion, conversion_receipt_view
from service.domain.entries import EntryType
from service.domain.operations import OperationStatus
from service.domain.quotes import Quote, QuoteStatus
from service.domain.wallets import Freeze, Wallet
from service.errors import BalanceOverflow, NotFound, NoWalletInCurrency, QuoteExpired, QuoteUsed
from service.ledger.commands import Changes, Needs, PersonalCommand, State
from service.ledger.rules import (
    charged,
    fits,
    movement_of,
    require_open,
    require_payable,
    require_requester,
    time_of_both,
)

_CREATED = 201


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertMoney(PersonalCommand):
    """What the quote says, once. `currencies` are the quote's, which never change; none where there is no quote.

    It counts for the limits of the wallet that gives. Else its money could leave by the other one, with other limits.
    """

    conversion_id: str
    quote_id: str
    currencies: tuple[str, ...]
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
    out_entry_id: str
    in_entry_id: str

    @property
    def needs(self) -> Needs:
        return Needs(
            users=(self.user_id,),
            owned_wallets=tuple((self.user_id, currency) for currency in self.currencies),
            records=(self.quote_id,),
        )

    def decide(self, state: State) -> Changes:
        require_requester(self, state)
        quote = self._find_open_quote(state)
        source = self._find_wallet(quote.from_currency, state)
        target = self._find_wallet(quote.to_currency, state)
        at = time_of_both(self.now, source, target, state)
        require_payable(source, quote.amount, at, state)
        require_open(target, Freeze.IN)
        if not fits(target, quote.to_amount):
            raise BalanceOverflow
        conversion = self._new_conversion(quote, source, target, at)
        # The quote's new version is part of the commit: of two conversions of one quote, one finds it used.
        used = quote._replace(status=QuoteStatus.USED, conversion_id=conversion.id, updated_at=at)
        house = SystemAccount.FX
        return Changes(
            conversion,
            (
                movement_of(
                    EntryType.CONVERSION_OUT,
                    source,
                    quote.amount,
                    conversion,
                    counterparty=house,
                    command=self,
                    entry_id=self.out_entry_id,
                ),
                movement_of(
                    EntryType.CONVERSION_IN,
                    target,
                    quote.to_amount,
                    conversion,
                    counterparty=house,
                    command=self,
                    entry_id=self.in_entry_id,
                ),
            ),
            wallets=(charged(source, quote.amount, at),),
            also=(used,),
            answer=lambda after: _receipt(conversion, after),
            status_code=_CREATED,
        )

    def _find_open_quote(self, state: State) -> Quote:
        quote = state.record(self.quote_id, Quote)
        if quote is None or quote.user_id != self.user_id:
            raise NotFound(f"There is no quote {self.quote_id}")
        if quote.status is QuoteStatus.USED:
            raise QuoteUsed(conversion_id=quote.conversion_id)
        if quote.status_at(self.now) is QuoteStatus.EXPIRED:
            raise QuoteExpired
        return quote

    def _find_wallet(self, currency: str, state: State) -> Wallet:
        wallet = state.wallet_in(self.user_id, currency)
        if wallet is None:
            raise NoWalletInCurrency(currency=currency)
        return wallet

    def _new_conversion(self, quote: Quote, source: Wallet, target: Wallet, at: datetime) -> Conversion:
        return Conversion(
            id=self.conversion_id,
            user_id=self.user_id,
            quote_id=quote.id,
            wallet_id=source.id,
            to_wallet_id=target.id,
            amount=quote.amount,
            currency=quote.from_currency,
            to_amount=quote.to_amount,
            to_currency=quote.to_currency,
            rate=quote.rate,
            margin_bp=quote.margin_bp,
            status=OperationStatus.SUCCESS,
            category=self.category,
            description=self.description,
            metadata=self.metadata,
            transaction_id=self.transaction_id,
            request_id=self.request_id,
            created_at=at,
            updated_at=at,
            is_counted=True,
        )


def _receipt(conversion: Conversion, after: State) -> dict[str, Any]:
    source, target = after.wallet(conversion.wallet_id), after.wallet(conversion.to_wallet_id)
    assert source is not None, "what was converted came from a wallet"
    assert target is not None, "what was converted went into a wallet"
    return conversion_receipt_view(conversion, source, target)
