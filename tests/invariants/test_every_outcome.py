"""Every behaviour of the bank times every order of its callbacks: the right end, one payment at most, sound books."""

import logging
from collections.abc import AsyncIterator

import pytest
import structlog

from scripts.check_ledger import check_ledger
from service.startup import Resources
from tests.bank.defects import DEFECTS
from tests.bank.paper import ending_of
from tests.bank.scenarios import CONDUCTS, LONGEST, Conduct, scenarios_of
from tests.bank.stage import Played, Stage
from tests.books_of_their_own import own_books
from tests.servers import Servers

# So that nothing makes them fewer unnoticed: 22 ways of the bank, for withdrawals and for deposits, and all
# permutations of up to four of six callbacks.
_SCENARIOS = 23_628
_SHOWN = 10


@pytest.fixture
async def own(servers: Servers, resources: Resources) -> AsyncIterator[Resources]:
    """A database of its own, and silence: a million lines would be told of all this."""
    usual = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    patience = {"bank_timeout_s": 60.0, "bank_recheck_s": 120.0, "ledger_patience_s": 60.0}
    try:
        async with own_books(servers, resources, bank_delay_max_s=0.0, bank_attempt_limit=3, **patience) as books:
            yield books.resources
    finally:
        structlog.configure(**usual)


async def _wrong(stage: Stage, conduct: Conduct, longest: int) -> tuple[list[Played], list[str]]:
    played = await stage.play(conduct, list(scenarios_of(conduct, longest)))
    told = [
        f"{one.reference}: {one.scenario}:\n  found    {one.ending}\n  expected {ending_of(one.scenario)}"
        for one in played
        if one.ending != ending_of(one.scenario)
    ]
    return played, told


class TestEveryOutcome:
    async def test_is_the_right_one_with_one_payment_at_most_and_sound_books(self, own: Resources) -> None:
        stage, expected, number = Stage(own), set(), 0
        for conduct in CONDUCTS:
            played, wrong = await _wrong(stage, conduct, LONGEST)
            assert not wrong, f"{conduct}: {len(wrong)} of {len(played)}\n" + "\n".join(wrong[:_SHOWN])
            number += len(played)
            expected |= {(rule, one.reference) for one in played for rule in one.ending.breaches}
        assert number == _SCENARIOS
        # Where the bank lied and nobody contradicted it, the books and its journal are apart, and nowhere else.
        assert {(str(breach.rule), breach.subject) for breach in await check_ledger(own.databases)} == expected

    async def test_finds_each_defect_that_is_put_in_by_hand(self, own: Resources) -> None:
        unseen = []
        for defect, conduct in DEFECTS.items():
            with pytest.MonkeyPatch.context() as patch:
                defect(patch)
                _, wrong = await _wrong(Stage(own), conduct, 2)
            if not wrong:
                unseen.append(defect.__name__)
        assert unseen == []
