"""All commands of the ledger, interleaved as chance has it, against paper: in memory, where a sequence takes no time.

`test_state_machine.py` plays the same on the real MongoDB. These need no server, so that each mutant of a rule can be
played against them (`make test-mutants`).
"""

import pytest
from hypothesis import Phase

from tests.machine.books import MemoryBooks
from tests.machine.defects import DEFECTS, STOPPED_BY_THE_KERNEL, Defect
from tests.machine.play import play

_ROUNDS = 12
_FURTHER_ROUNDS = 40


class TestEverySequence:
    async def test_in_memory_comes_to_what_paper_says(self) -> None:
        await play(MemoryBooks(), 1, rounds=_ROUNDS)


class TestThatItBites:
    """One defect at a time, found within the sequences of `make test`."""

    @pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
    async def test_finds(self, monkeypatch: pytest.MonkeyPatch, defect: Defect) -> None:
        defect(monkeypatch)
        # Shrinking would only tell what is known here.
        unshrunk = {"phases": (Phase.generate,), "report_multiple_bugs": False}
        with pytest.raises(Exception) as found:  # noqa: PT011 paper, the ledger or the books may object
            await play(MemoryBooks(), DEFECTS[defect], rounds=_ROUNDS + _FURTHER_ROUNDS, **unshrunk)
        assert "TEST_SEED" in found.value.__notes__[-1]
        assert STOPPED_BY_THE_KERNEL.get(defect, "") in str(found.value)
