"""The faults that matter most, in a minute: a dead primary, frozen processes, a power cut."""

from typing import Final

from scripts.service_stack import API, WORKER
from tests.cluster import faults
from tests.cluster.trial import Trial

# 3 s on two cores, of which 2 are the election's time. MongoDB's own settings make it 11.
_MOST_WITHOUT_A_PRIMARY_S: Final = 10.0


async def test_a_primary_that_is_killed_costs_seconds_of_writes_and_nothing_else(trial: Trial) -> None:
    figures = await trial.under("primary killed", faults.killed_primary(trial.cluster), lasting_s=5.0)
    assert figures.without_writes_s < _MOST_WITHOUT_A_PRIMARY_S


async def test_an_api_and_a_worker_that_freeze_and_go_on_lose_nothing_and_pay_nothing_twice(trial: Trial) -> None:
    await trial.under("API and worker frozen", faults.frozen(trial.cluster, API, WORKER), lasting_s=6.5)


async def test_a_power_cut_loses_nothing_that_was_answered(trial: Trial) -> None:
    await trial.under("power cut", faults.power_cut(trial.cluster), lasting_s=0.5)
