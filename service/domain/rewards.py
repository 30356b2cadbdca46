"""Points for what has settled: the rules by which they are earned, and the record of each time that they were."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.clock import to_rfc3339
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

    def points_for(self, settled: Settled) -> int:
        is_meant = event_of(settled) is self.on and settled.currency == self.currency
        if not is_meant or settled.amount < self.minimum or self.category not in (None, settled.category):
            return 0
        return min(settled.amount // self.per_amount * self.points, self.maximum_points)


def event_of(settled: Settled) -> EarningEvent:
    return EarningEvent.TRANSFER if isinstance(settled, Transfer) else EarningEvent(settled.type.value)


def earned_points(rules: Sequence[EarningRule], settled: Settled) -> dict[str, int]:
    """By the rule's name, of those that give any: rules add up."""
    return {rule.name: points for rule in rules if (points := rule.points_for(settled))}


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
