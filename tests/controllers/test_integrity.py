"""Integrity over HTTP."""

import httpx

from service.database import Databases
from service.domain.breaks import BreakKind
from service.settings import Settings
from tests.factories import make_break
from tests.staff import Staff


class TestIntegrity:
    async def test_tells_of_rounds_days_breaks_the_trial_balance_and_the_last_checkpoint(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings
    ) -> None:
        await make_break(kind=BreakKind.PAID_TWICE)
        admin = await Staff.hire(api, databases, settings, "admin")
        answer = await admin.get("/admin/integrity")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert set(told) == {
            "is_sound", "doubts", "replay", "days", "days_overdue", "lines_set_aside", "breaks", "trial_balance",
            "last_checkpoint",
        }  # fmt: skip
        assert set(told["breaks"]) == set(BreakKind)
        assert told["breaks"]["paid_twice"] >= 1
        assert isinstance(told["trial_balance"]["is_balanced"], bool)

    async def test_is_for_admins(self, api: httpx.AsyncClient, databases: Databases, settings: Settings) -> None:
        for roles in ((), ("service",)):
            somebody = await Staff.hire(api, databases, settings, *roles)
            for path in ("/admin/integrity", "/admin/breaks"):
                assert (await somebody.get(path)).status_code == 403
