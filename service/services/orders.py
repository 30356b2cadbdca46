"""What a person asks for, as the controllers hand it over."""

from collections.abc import Mapping
from typing import NamedTuple


class Requester(NamedTuple):
    """Who asks. `token_version` is that of the token they came with; None where there was none, as in the seed."""

    user_id: str
    token_version: int | None


class Order(NamedTuple):
    """`amount` in minor units of `currency`; `account` is the source or destination at the bank."""

    amount: int
    currency: str
    account: str
    category: str | None
    description: str | None
    metadata: Mapping[str, str]
