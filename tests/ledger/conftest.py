"""What tests of the ledger may ask for besides."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from service.database import Databases
from service.domain.policy import Policy
from service.ledger.committer import Ledger


class TwoLedgers(NamedTuple):
    """As of two processes, on one database."""

    first: Ledger
    second: Ledger


@pytest.fixture
async def ledgers(databases: Databases) -> AsyncIterator[TwoLedgers]:
    policy = Policy(adjustment_approval_above={"INR": 1_000})
    limits: dict[str, Any] = {"policy": policy, "batch_limit": 256, "queue_limit": 1000, "patience_s": 10.0}
    both = TwoLedgers(*(Ledger(databases.client, **limits, on_committed=lambda _: None) for _ in range(2)))
    for ledger in both:
        ledger.start()
    yield both
    for ledger in both:
        await ledger.close()
