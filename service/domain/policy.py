"""The settable part of the rules, as the ledger is given it."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import NamedTuple

from service.domain.house_positions import Floors
from service.domain.limits import Limits
from service.domain.money import ORDINARY_CURRENCIES, POINTS
from service.domain.rewards import EarningBounds, EarningRule
from service.domain.user_limits import ReferenceLimits

_NOTHING: Mapping[str, int] = MappingProxyType({})
_NO_FLOORS: Floors = MappingProxyType({})
_NO_LIMITS: Mapping[str, Limits] = MappingProxyType({})


class Policy(NamedTuple):
    """By currency; a currency that is not named has no limits and needs no approval. The settings name all."""

    limits: Mapping[str, Limits] = _NO_LIMITS
    # Payments above it wait for a one-time code, adjustments by an admin for a second admin.
    step_up_above: Mapping[str, int] = _NOTHING
    # So do payments by which more than this leaves a wallet in a day.
    step_up_day_above: Mapping[str, int] = _NOTHING
    adjustment_approval_above: Mapping[str, int] = _NOTHING
    # So do adjustments by which an admin, a service or a key would have moved more than this alone in a day.
    adjustment_day_above: Mapping[str, int] = _NOTHING
    # What settles earns points by these; they add up.
    earning_rules: tuple[EarningRule, ...] = ()
    earning_bounds: EarningBounds = EarningBounds()
    # Currencies that wallets are opened in and money is taken in; points always besides.
    currencies: frozenset[str] = ORDINARY_CURRENCIES
    # Of each user over all wallets; those of `limits` are of each wallet.
    user_limits: ReferenceLimits = ReferenceLimits()

    # By account and currency, how far down its position may go.
    house_floors: Floors = _NO_FLOORS
    # How far clocks may differ, and with them another wallet's time may pull a command ahead.
    clock_bound: timedelta = timedelta(seconds=5)

    def deals_in(self, currency: str) -> bool:
        return currency in self.currencies or currency == POINTS

    def limits_in(self, currency: str) -> Limits:
        return self.limits.get(currency, Limits())

    def needs_step_up(self, amount: int, currency: str) -> bool:
        ceiling = self.step_up_above.get(currency)
        return ceiling is not None and amount > ceiling

    def needs_second_admin(self, amount: int, currency: str) -> bool:
        ceiling = self.adjustment_approval_above.get(currency)
        return ceiling is not None and amount > ceiling
