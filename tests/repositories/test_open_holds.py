"""A return looks for the wallet's open holds: it reads those alone, however many have ended."""

from datetime import timedelta

import pytest
from bson.int64 import Int64

from service.domain.clock import utc_now
from service.domain.holds import HoldStatus
from service.domain.identifiers import Prefix, new_id
from service.repositories import records as record_repository
from service.settings import Settings
from tests.repositories.test_figures import profiled
from tests.servers import Admin

_ENDED = 200
_OPEN = 3


@pytest.mark.usefixtures("databases")
async def test_only_those_that_are_open_are_read(settings: Settings, admin: Admin) -> None:
    user_id, wallet_id, now = new_id(Prefix.USER), new_id(Prefix.WALLET), utc_now()
    rows = [
        {
            "_id": new_id(Prefix.HOLD),
            "user_id": user_id,
            "wallet_id": wallet_id,
            "status": HoldStatus.RELEASED if number < _ENDED else HoldStatus.HELD,
            "amount": Int64(1),
            "created_at": now,
            "expires_at": now + timedelta(days=1),
        }
        for number in range(_ENDED + _OPEN)
    ]
    holds = admin[settings.database]["holds"]
    # Only what the query looks at.
    admin[settings.database].command("collMod", "holds", validationLevel="off")
    holds.insert_many(rows)
    try:
        with profiled(admin, settings.database) as seen:
            found = await record_repository.find_open_holds(user_id, wallet_id, limit=100)
        assert [hold_id for hold_id, _ in found] == [str(row["_id"]) for row in rows[-1 : -1 - _OPEN : -1]]
        (read,) = [one for one in seen if one["ns"].endswith(".holds")]
        assert read["docsExamined"] == _OPEN
    finally:
        holds.delete_many({"wallet_id": wallet_id})
        admin[settings.database].command("collMod", "holds", validationLevel="strict")
