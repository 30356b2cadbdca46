"""Points for what has settled: the rules by which they are earned, and the record of each time that they were."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
from service.domain.entries import EFFECTS, EntryType
from service.domain.identifiers import Prefix
from service.domain.operations import Operation
from service.domain.transfers import Transfer

Settled = Operation | Transfer


class EarningEvent(StrEnum):
    """What may earn points once it has succeeded. The points are its requester's: of a transfer, the sender's."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    TRANSFER = "transfer"


class EarningRule(NamedTuple):
    """`points` for each whole `per_amount` (minor units), from `minimum` on and up to `maximum_points`."""

    name: str
    on: EarningEvent
    currency: str
    per_amount: int
    points: int
    maximum_points: int
    minimum: int = 0
    category: str | None = None

    def points_for(self, settled: Settled, amount: int | None = None) -> int:
        """`amount` is what counts of the settled amount; None: all of it."""
        counts = settled.amount if amount is None else amount
        is_meant = event_of(settled) is self.on and settled.currency == self.currency
        if not is_meant or settled.amount < self.minimum or self.category not in (None, settled.category):
            return 0
        return min(counts // self.per_amount * self.points, self.maximum_points)


class EarningBounds(NamedTuple):
    """Bounds that keep one sum from earning again and again.

    A deposit earns for money that is new within `window`: what left the wallet meanwhile is taken off, and so is what
    has earned already. Nobody earns more than `points_per_day` in 24 hours. Points are credited `pending` after the
    operation has settled, as long as the bank may take a deposit back.
    """

    window: timedelta = timedelta(days=30)
    points_per_day: int = 10_000
    pending: timedelta = timedelta(0)


class EarningRoom(NamedTuple):
    """How much may still earn, as read when the wallet for points was at `points_seq`: no other reward came since."""

    points_seq: int
    amount: int
    points: int


def event_of(settled: Settled) -> EarningEvent:
    return EarningEvent.TRANSFER if isinstance(settled, Transfer) else EarningEvent(settled.type.value)


def earned_points(rules: Sequence[EarningRule], settled: Settled, room: EarningRoom | None = None) -> dict[str, int]:
    """By the rule's name, of those that give any: rules add up, as far as there is room."""
    amount = settled.amount if room is None else min(settled.amount, room.amount)
    given: dict[str, int] = {}
    for rule in rules:
        points = rule.points_for(settled, amount)
        if room is not None:
            points = min(points, room.points - sum(given.values()))
        if points:
            given[rule.name] = points
    return given


# Entry types that add new money: deposits, returned withdrawals, reversals.
_NEW_MONEY = frozenset({EntryType.DEPOSIT, EntryType.WITHDRAWAL_RETURN, EntryType.REVERSAL_IN})


def net_new_amount(sums: Mapping[EntryType, int], balance_before: int, counted: int) -> int:
    """Returns how much of what was paid into a wallet within a window may still earn.

    `sums` are the wallet's amounts by type within the window, and `counted` is what has earned there. What left the
    wallet is taken off as far as it is more than `balance_before`, the balance at the beginning of the window. Incoming
    transfers do not count: their money was paid in somewhere else.
    """
    new = left = 0
    for entry_type, amount in sums.items():
        effect = EFFECTS[entry_type]
        delta = effect.available + effect.held
        if entry_type is EntryType.DEPOSIT_RETURN or entry_type in _NEW_MONEY:
            new += delta * amount
        elif delta < 0:
            left -= delta * amount
    return max(0, new - max(0, left - balance_before) - counted)


class RewardStatus(StrEnum):
    SUCCESS = "success"
    # There was no open wallet that could take them.
    LAPSED = "lapsed"


class Reward(NamedTuple):
    """Written once and never changed. `rules` says which rule gave how many of the `points`."""

    id: str
    user_id: str
    wallet_id: str
    operation_id: str
    points: int
    rules: Mapping[str, int]
    status: RewardStatus
    transaction_id: str
    request_id: str | None
    created_at: datetime
    # How much of a deposit has earned, and in which currency. Rewards of earlier releases lack both.
    counted: int = 0
    currency: str | None = None
    # When the operation settled.
    settled_at: datetime | None = None

    @property
    def category(self) -> str | None:
        """None: the operation has one, points have not."""
        return None


def reward_id(operation_id: str) -> str:
    """One operation, one reward: the database itself lets no second one in."""
    return f"{Prefix.REWARD}_{operation_id.partition('_')[2]}"


def reward_view(reward: Reward) -> dict[str, Any]:
    """Returns the reward as the API shows it."""
    return {
        "id": reward.id,
        "status": reward.status,
        "points": reward.points,
        "rules": reward.rules,
        "operation_id": reward.operation_id,
        "wallet_id": reward.wallet_id,
        "transaction_id": reward.transaction_id,
        "created_at": to_rfc3339(reward.created_at),
    }
