"""Every behaviour of the bank times every order of its callbacks: the right end, one payment at most, sound books."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog

from service.errors import InternalError
from service.settings import Settings
from service.startup import Resources
from tests.bank.defects import DEFECTS
from tests.bank.paper import MANNERS
from tests.bank.scenarios import CONDUCTS, Block, Conduct, Purse, blocked_scenarios_of, scenarios_of, spent_scenarios_of
from tests.bank.stage import Stage
from tests.books_of_their_own import own_books
from tests.commands import run_module
from tests.servers import Servers

# So that nothing makes them fewer unnoticed: 22 ways of the bank, for withdrawals and for deposits, and all
# permutations of up to four of five callbacks, none included; withdrawals that were blocked, in three ways; deposits
# that were spent before they were returned, in three ways.
_SCENARIOS = 11_936
_PROCESSES = 2
_SHOWN = 10
# Nobody runs out of time here, however busy the machine is; and the third visit is the last.
_PATIENT = {
    "bank_delay_min_s": 0.0,
    "bank_delay_max_s": 0.0,
    "bank_timeout_s": 60.0,
    "bank_recheck_s": 120.0,
    "ledger_patience_s": 60.0,
    "bank_attempt_limit": 3,
}


async def _play(conducts: Sequence[Conduct], settings: Settings, folder: Path) -> dict[str, Any]:
    """In a process and a database of their own."""
    patient = {f"WALLET_{name.upper()}": str(value) for name, value in _PATIENT.items()}
    own = patient | {"WALLET_DATABASE": f"wallet_test_{uuid4().hex[:8]}", "WALLET_DATA_DIR": str(folder)}
    ended = await run_module(settings, folder, "tests.bank", *conducts, **own)
    assert ended.status == 0, ended.err
    told: dict[str, Any] = json.loads(ended.out)
    return told


@pytest.fixture
async def own(servers: Servers, resources: Resources) -> AsyncIterator[Resources]:
    """A database of its own, and silence."""
    usual = structlog.get_config()
    # A logger that is kept from its first use would stay silent for all tests that follow.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        async with own_books(servers, resources, **_PATIENT) as books:
            yield books.resources
    finally:
        structlog.configure(**usual)


class TestEveryOutcome:
    async def test_is_the_right_one_with_one_payment_at_most_and_sound_books(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        shares = [CONDUCTS[start::_PROCESSES] for start in range(_PROCESSES)]
        told = await asyncio.gather(*(_play(share, settings, tmp_path) for share in shares))
        troubles = [trouble for one in told for trouble in one["troubles"]]
        assert not troubles, f"{len(troubles)}\n" + "\n".join(troubles[:_SHOWN])
        assert sum(one["number"] for one in told) == _SCENARIOS
        assert [(one["overlooked"][:_SHOWN], one["unexpected"][:_SHOWN]) for one in told] == [([], [])] * _PROCESSES
        assert all(one["breaches"] for one in told), "some of the lies are nobody's incident"

    async def test_finds_each_defect_that_is_put_in_by_hand(self, own: Resources) -> None:
        unseen = []
        for defect, conduct in DEFECTS.items():
            with pytest.MonkeyPatch.context() as patch:
                defect(patch)
                try:
                    played = await Stage(own).play(conduct, list(scenarios_of(conduct, 2)))
                    blocked = blocked_scenarios_of(conduct, Block.AFTER_AN_ORDER)
                    played += await Stage(own).play(conduct, list(blocked))
                    if MANNERS[conduct].comes_back:
                        spent = spent_scenarios_of(conduct, Purse.PARTLY_SPENT)
                        played += await Stage(own).play(conduct, list(spent))
                except InternalError:
                    # The ledger itself has refused to go on.
                    continue
            if all(one.trouble is None for one in played):
                unseen.append(defect.__name__)
        assert unseen == []
