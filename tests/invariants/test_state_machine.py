"""All commands of the ledger, interleaved as chance has it, against paper: on the real MongoDB, batch by batch."""

import asyncio
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.database import Databases
from tests.machine.base import Table
from tests.machine.defects import DEFECTS, Defect
from tests.machine.rewards import RewardRules

# Hypothesis makes mutants of a sequence that it has played, mostly duller than new ones, but not of the first ten.
_SEQUENCES_EACH = 10


async def play(databases: Databases, first_seed: int, *, rounds: int, steps: int, **overrides: Any) -> Table:
    """Each round has a seed of its own, with which it can be repeated alone."""
    table = Table(databases, asyncio.get_running_loop(), [], Counter())
    for round_seed in range(first_seed, first_seed + rounds):
        machine = seed(round_seed)(type("Ledger", (RewardRules,), {"table": table}))
        chosen = settings(
            max_examples=_SEQUENCES_EACH, stateful_step_count=steps, deadline=None, database=None, **overrides
        )
        try:
            await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)
        except BaseException as failure:
            failure.add_note(f"Again with TEST_SEED={round_seed}")
            raise
    return table


class TestEverySequence:
    async def test_agrees(self, databases: Databases) -> None:
        table = await play(
            databases, int(os.environ.get("TEST_SEED", "1")), rounds=int(os.environ.get("N", "10")), steps=50
        )
        for key, n in sorted(table.seen.items(), key=str):
            print(n, *key)


class TestThatItBites:
    @pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
    async def test_finds(self, databases: Databases, monkeypatch: pytest.MonkeyPatch, defect: Defect) -> None:
        defect(monkeypatch)
        with pytest.raises(Exception) as caught:
            await play(databases, 1, rounds=20, steps=50, phases=(Phase.generate,), report_multiple_bugs=False)
        print(type(caught.value), str(caught.value)[:300], caught.value.__notes__[-1])
