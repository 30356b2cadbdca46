"""Admins, services and owners at the same wallets at once, over real HTTP: the books agree afterwards."""

import asyncio
from typing import Any

import httpx

from scripts.check_ledger import check_ledger
from service.database import Databases
from tests.person import PASSWORD, Person


async def hire(http: httpx.AsyncClient, databases: Databases, *roles: str) -> Person:
    """Somebody who has registered, was given the roles, and has logged in again."""
    person = await Person.register(http)
    users = databases.wallet["users"]
    await users.update_one({"_id": person.user_id}, {"$set": {"roles": ["user", *roles]}})
    user = await users.find_one({"_id": person.user_id})
    assert user is not None
    login = await http.post("/api/v1/auth/login", json={"email": user["email"], "password": PASSWORD})
    person.headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    return person


class TestStaffAndOwners:
    async def test_at_the_same_wallets_at_once_leave_sound_books(
        self, http: httpx.AsyncClient, stack_databases: Databases
    ) -> None:
        boss, second = [await hire(http, stack_databases, "admin") for _ in range(2)]
        robot = await hire(http, stack_databases, "service")
        payer, friend = await Person.register(http), await Person.register(http)
        await payer.fund(10_000)
        order: dict[str, Any] = {"currency": "INR", "reason": "A test"}
        sent = await asyncio.gather(
            *(
                payer.post(
                    "/transfers",
                    from_wallet_id=payer.wallet_id,
                    to_wallet_id=friend.wallet_id,
                    amount=100,
                    currency="INR",
                )
                for _ in range(20)
            )
        )
        waiting = await boss.post(f"/wallets/{friend.wallet_id}/credits", amount=100_000_001, **order)
        assert waiting.status_code == 202, waiting.text
        transfer_ids = [answer.json()["id"] for answer in sent]
        await asyncio.gather(
            *(friend.withdraw(90) for _ in range(15)),
            *(
                admin.post(f"/transfers/{transfer_id}/reversal", reason="A test", force=True)
                for transfer_id in transfer_ids
                for admin in (boss, second)
            ),
            *(robot.post(f"/wallets/{payer.wallet_id}/debits", amount=7, **order) for _ in range(20)),
            *(robot.post(f"/wallets/{friend.wallet_id}/credits", amount=9, **order) for _ in range(20)),
            second.post(f"/adjustments/{waiting.json()['id']}/approve"),
            boss.post(f"/adjustments/{waiting.json()['id']}/reject", reason="A test"),
            boss.post(f"/wallets/{friend.wallet_id}/freeze", direction="out", reason="A test"),
        )
        assert (await payer.wallet())["available"] == 10_000 - 20 * 7
        reversals = stack_databases.wallet["reversals"]
        assert await reversals.count_documents({"original_id": {"$in": transfer_ids}}) == len(transfer_ids)
        assert (await friend.wallet())["frozen"] == "out"
        assert await check_ledger(stack_databases) == []
