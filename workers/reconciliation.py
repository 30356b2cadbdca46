"""Compares days with the bank's statements: each worker looks, and one of them does it."""

import asyncio
import random
from typing import NoReturn

import structlog

from service.gateways.bank import BankOutcomeUnknown, BankUnavailable
from service.services.reconciliation import LOOK_S, Clerk, reconcile_what_is_due
from service.startup import Resources
from workers.repeating import repeat

log = structlog.get_logger()


async def reconcile_for_ever(resources: Resources) -> NoReturn:
    clerk = Clerk(resources.databases.client, resources.ledger, resources.bank, resources.settings)

    async def look() -> None:
        try:
            await reconcile_what_is_due(clerk)
        except (BankOutcomeUnknown, BankUnavailable) as trouble:
            log.warning("reconciliation.bank_silent", reason=str(trouble))

    # First the others' turn: a worker that starts has more urgent things to do.
    await asyncio.sleep(random.uniform(LOOK_S / 2, LOOK_S))  # noqa: S311 no secret
    await repeat("reconciliation", look, LOOK_S)
