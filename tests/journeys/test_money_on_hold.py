"""Holds over real HTTP, with a real worker: captured in part, and given back by the worker when nobody comes."""

import asyncio
import time
from typing import Any

import httpx

from tests.person import Person

_WAIT_LIMIT_S = 30.0
_POLL_S = 0.1


async def _ended(person: Person, hold_id: str) -> dict[str, Any]:
    """The hold once it is no longer held."""
    deadline = time.monotonic() + _WAIT_LIMIT_S
    while True:
        hold: dict[str, Any] = (await person.get(f"/holds/{hold_id}")).json()
        if hold["status"] != "held":
            return hold
        assert time.monotonic() < deadline, hold
        await asyncio.sleep(_POLL_S)


class TestMoneyOnHold:
    async def test_one_hold_is_captured_in_part_and_the_other_expires_by_the_worker(
        self, http: httpx.AsyncClient
    ) -> None:
        guest, hotel = await Person.register(http), await Person.register(http)
        await guest.fund(10_000)
        order = {"wallet_id": guest.wallet_id, "to_wallet_id": hotel.wallet_id, "currency": "INR"}
        room = await guest.post("/holds", amount=4_000, category="hotel", **order)
        deposit = await guest.post("/holds", amount=1_000, expires_in_s=1, **order)
        assert (room.status_code, deposit.status_code) == (201, 201), room.text + deposit.text
        wallet = await guest.wallet()
        assert (wallet["available"], wallet["held"]) == (5_000, 5_000)

        captured = await hotel.post(f"/holds/{room.json()['id']}/capture", amount=3_500)
        assert captured.status_code == 200, captured.text
        assert (await hotel.wallet())["available"] == 3_500

        expired = await _ended(guest, deposit.json()["id"])
        assert (expired["status"], expired["captured_amount"]) == ("expired", 0)
        refused = await hotel.post(f"/holds/{expired['id']}/capture")
        assert (refused.status_code, refused.json()["error"]) == (409, "hold_expired")
        wallet = await guest.wallet()
        assert (wallet["available"], wallet["held"]) == (6_500, 0)

        history = (await guest.get(f"/wallets/{guest.wallet_id}/transactions")).json()["data"]
        told = [(entry["type"], entry["amount"], entry["reference"]) for entry in history]
        assert told[0] == ("HOLD_RELEASE", 1_000, expired["id"])
        assert {entry for entry in told if entry[2] == room.json()["id"]} == {
            ("HOLD", 4_000, room.json()["id"]),
            ("HOLD_CAPTURE", 3_500, room.json()["id"]),
            ("HOLD_RELEASE", 500, room.json()["id"]),
        }
        to_get = (await hotel.get("/holds?role=payee")).json()["data"]
        assert [hold["status"] for hold in to_get] == ["expired", "captured"]
