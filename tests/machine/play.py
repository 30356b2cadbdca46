"""Plays the machine: some rounds of sequences, each from a seed of its own."""

import asyncio
from collections import Counter
from typing import Any
from unittest.mock import patch

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.ledger import debts
from tests.machine.base import CURRENCIES, HOUSE, PLENTY, Table
from tests.machine.books import Books
from tests.machine.outcomes import OutcomeRules

# Hypothesis makes mutants of a sequence that it has played, mostly duller than new ones, but not of the first ten.
_SEQUENCES_EACH = 10
# Enough to open something, to let it meet what else there is, and to end it.
_STEPS = 50


async def play(books: Books, first_seed: int, *, rounds: int, **overrides: Any) -> Table:
    """Each round has a seed of its own, with which it can be repeated alone."""
    table = Table(books, asyncio.get_running_loop(), [], Counter())
    for round_seed in range(first_seed, first_seed + rounds):
        machine = seed(round_seed)(type("Ledger", (OutcomeRules,), {"table": table}))
        chosen = settings(
            max_examples=_SEQUENCES_EACH, stateful_step_count=_STEPS, deadline=None, database=None, **overrides
        )
        try:
            # Each sequence has its own (`open_books`).
            with patch.dict(vars(debts)):
                await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)
        except BaseException as failure:
            failure.add_note(f"To play this round alone: TEST_SEED={round_seed}")
            raise
        finally:
            # For other tests, which exchange and pay out as they like.
            await books.set_headroom({(account, currency): PLENTY for account in HOUSE for currency in CURRENCIES})
    return table
