"""Every behaviour of the bank times every order of its callbacks: the right end, one payment at most, sound books."""

import logging
from collections.abc import AsyncIterator

import pytest
import structlog

from scripts.check_ledger import check_ledger
from service.database import bind_documents, set_up
from service.startup import Resources, open_resources
from tests.bank.paper import ending_of
from tests.bank.scenarios import CONDUCTS, Conduct, scenarios_of
from tests.bank.stage import Played, Stage
from tests.servers import Servers, make_settings

# So that nothing makes them fewer unnoticed.
_SCENARIOS = 23_628
_SHOWN = 10


@pytest.fixture
async def own(servers: Servers, resources: Resources) -> AsyncIterator[Resources]:
    """A database of its own, where nobody is told in words what happens: there would be a million of them."""
    settings = make_settings(
        servers,
        bank_delay_max_s=0.0,
        bank_timeout_s=60.0,
        bank_recheck_s=120.0,
        bank_attempt_limit=3,
    )
    await set_up(settings)
    usual = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        async with open_resources(settings) as own:
            yield own
    finally:
        structlog.configure(**usual)
        await bind_documents(resources.databases)


def _wrong(played: list[Played]) -> list[str]:
    return [
        f"{one.reference}: {one.scenario}:\n  found    {one.ending}\n  expected {ending_of(one.scenario)}"
        for one in played
        if one.ending != ending_of(one.scenario)
    ]


async def _play(stage: Stage, conduct: Conduct, longest: int) -> list[Played]:
    played = await stage.play(conduct, list(scenarios_of(conduct, longest)))
    wrong = _wrong(played)
    assert not wrong, f"{conduct}: {len(wrong)} of {len(played)}\n" + "\n".join(wrong[:_SHOWN])
    return played


class TestEveryOutcome:
    async def test_is_the_right_one_with_one_payment_at_most_and_sound_books(self, own: Resources) -> None:
        stage = Stage(own)
        played = 0
        for conduct in CONDUCTS:
            played += len(await _play(stage, conduct, 4))
        assert played == _SCENARIOS
        assert await check_ledger(own.databases) == []
