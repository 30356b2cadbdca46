"""The simulated bank's switches at the command line, and that whoever runs beside it sees them."""

from pathlib import Path

import pytest

from service.gateways.bank_conditions import BankConditions
from service.startup import Resources
from tests.commands import Ended, run_module
from tests.servers import Admin


class TestTheCommand:
    async def test_takes_the_bank_down_and_up_and_moves_its_clock(
        self, resources: Resources, admin: Admin, tmp_path: Path
    ) -> None:
        settings = resources.settings

        async def bank(*arguments: str) -> Ended:
            return await run_module(settings, tmp_path, "scripts.bank", *arguments)

        conditions = BankConditions(settings)
        try:
            down = await bank("down", "--for", "600", "--hang")
            assert (down.status, "answers nothing" in down.out) == (0, True), down
            outage = await conditions.outage()
            assert outage is not None
            assert outage.hangs
            up = await bank("up")
            assert (up.status, "bank: up" in up.out) == (0, True), up
            before = await conditions.now()
            moved = await bank("clock", "+3d")
            assert moved.status == 0, moved
            conditions.forget()
            assert (await conditions.now() - before).days == 3
            assert await conditions.outage() is None
        finally:
            admin[settings.bank_database]["conditions"].delete_many({})

    @pytest.mark.parametrize("step", ["3", "-3d", "3 days", "+9999999d"])
    async def test_a_clock_goes_forward_by_so_much_and_no_other_way(
        self, resources: Resources, tmp_path: Path, step: str
    ) -> None:
        ended = await run_module(resources.settings, tmp_path, "scripts.bank", "clock", "--", step)
        assert ended.status == 2
