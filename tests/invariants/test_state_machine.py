"""All commands of the ledger, interleaved as chance has it, against paper: on the real MongoDB, batch by batch."""

import asyncio
import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.database import Databases
from tests.machine.base import Table
from tests.machine.adjustments import AdjustmentRules


async def play(databases: Databases, *, sequences: int, steps: int, first_seed: int, **overrides: Any) -> None:
    table = Table(databases, asyncio.get_running_loop(), [], Counter())
    machine = seed(first_seed)(type("TheLedger", (AdjustmentRules,), {"table": table}))
    chosen = settings(max_examples=sequences, stateful_step_count=steps, deadline=None, database=None, **overrides)
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)
    for key, n in sorted(table.seen.items(), key=str): print(n, *key)


class TestEverySequence:
    async def test_agrees(self, databases: Databases) -> None:
        await play(databases, sequences=int(os.environ.get("N", "100")), steps=50, first_seed=1)
