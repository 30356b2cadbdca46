"""What holds for the limits of all of a user's wallets together."""

from datetime import datetime
from typing import NamedTuple

from service.domain.identifiers import Prefix


class UserLimits(NamedTuple):
    """One user's, by an id that follows from the user's.

    `time_zone` is where the days and months of their wallets begin, as far as no admin has set a wallet's own; None
    leaves that to each wallet's currency. The wallets carry a copy, so that no payment has to read this.
    """

    id: str
    user_id: str
    time_zone: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 0


def user_limits_id(user_id: str) -> str:
    return f"{Prefix.USER_LIMITS.value}_{user_id.partition('_')[2]}"


def new_user_limits(user_id: str, at: datetime) -> UserLimits:
    return UserLimits(user_limits_id(user_id), user_id, None, at, at)
