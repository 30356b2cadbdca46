"""The trial balance: what the house and the bank have, what wallets hold, and that the two are the same."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, read_in_snapshot
from service.domain.accounts import BETWEEN_WALLETS, AccountSum, SystemAccount, add_up
from service.domain.clock import utc_now
from service.domain.house_positions import AccountCurrency, Portion, floor_of
from service.repositories import account_sums as sums_repository
from service.repositories import house_positions as position_repository
from service.repositories import wallets as wallet_repository
from service.repositories.wallets import WalletTotal

# For each of the two reads. An hour and a quarter of entries at full speed, 2,000 a second, takes half of it.
_LIMIT_S = 60.0


class CurrencyBalance(NamedTuple):
    """One currency: system accounts, whatever else entries name as one, and wallets."""

    currency: str
    accounts: list[AccountSum]
    between_wallets: AccountSum
    wallets: WalletTotal
    # Of accounts that have a floor: the floor, and what is left above it.
    floors: Mapping[str, tuple[int, int]]

    @property
    def total(self) -> int:
        """Zero, or money has come from nowhere or gone there."""
        return self.wallets.available + self.wallets.held + sum(account.balance for account in self.accounts)

    @property
    def is_balanced(self) -> bool:
        return self.total == 0 and self.between_wallets.balance == 0


class TrialBalance(NamedTuple):
    """`sums_through`: from where on entries were read one by one; None where no hour was closed yet."""

    as_of: datetime
    sums_through: datetime | None
    currencies: list[CurrencyBalance]

    @property
    def is_balanced(self) -> bool:
        return all(currency.is_balanced for currency in self.currencies)


async def draw_up_trial_balance(client: Client) -> TrialBalance:
    """All of one moment: the stored sums, the entries since, and the wallets."""
    return await read_in_snapshot(client, _read)


async def _read(session: AsyncClientSession) -> TrialBalance:
    # Before the first read, which is what takes the snapshot: nothing that was committed by then is missing.
    as_of = utc_now()
    stored = await sums_repository.find_last(session=session)
    reached = None if stored is None else stored.through
    since = await sums_repository.sum_entries(reached, None, session=session, limit_s=_LIMIT_S)
    wallets = await wallet_repository.total_by_currency(session=session, limit_s=_LIMIT_S)
    corrections = await sums_repository.find_corrections(session=session)
    corrected = [one for correction in corrections for one in correction.sums]
    booked = add_up([*(() if stored is None else stored.sums), *corrected, *since])
    floors = _floors_of(await position_repository.find_all(session=session))
    return TrialBalance(as_of, reached, _by_currency(booked, wallets, floors))


def _floors_of(portions: Collection[Portion]) -> dict[str, dict[str, tuple[int, int]]]:
    """By currency and account: the floor, and what all portions together have above it."""
    left: Counter[AccountCurrency] = Counter()
    for portion in portions:
        left[portion.pair] += portion.headroom
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for portion in portions:
        if portion.floor is not None:
            found[portion.currency][portion.account] = portion.floor, left[portion.pair]
    return found


def _by_currency(
    booked: Iterable[AccountSum],
    wallets: Iterable[WalletTotal],
    floors: Mapping[str, Mapping[str, tuple[int, int]]],
) -> list[CurrencyBalance]:
    sums = {(one.currency, one.account): one for one in booked}
    totals = {total.currency: total for total in wallets}
    # What names no account of ours is damage, and has to be seen.
    strangers = sorted({account for _, account in sums} - {*SystemAccount, BETWEEN_WALLETS})
    currencies = sorted({currency for currency, _ in sums} | set(totals) | set(floors))

    # Where nothing was booked or stated yet: those that have a floor in every currency.
    usual = {one.value: (0, 0) for one in SystemAccount if floor_of((one, "any"), {}) is not None}

    def sum_of(currency: str, account: str) -> AccountSum:
        return sums.get((currency, account), AccountSum(account, currency, 0, 0))

    return [
        CurrencyBalance(
            currency,
            [sum_of(currency, account) for account in SystemAccount]
            + [sums[currency, account] for account in strangers if (currency, account) in sums],
            sum_of(currency, BETWEEN_WALLETS),
            totals.get(currency, WalletTotal(currency, 0, 0, 0)),
            {**usual, **floors.get(currency, {})},
        )
        for currency in currencies
    ]
