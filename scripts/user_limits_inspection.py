"""Reads each user's limits beside their wallets and the audit events about them, and holds them against each other."""

from collections.abc import AsyncIterator
from typing import Final

from scripts import audit_rules
from scripts.ledger_reader import Reader, join
from scripts.ledger_rules import Breach, told_of
from scripts.record_rules import Row
from scripts.user_limits_rules import ACTIONS, LIMITS_PREFIX, USER_PREFIX, check_user

_WALLET_FIELDS: Final = ("_id", "user_id", "owner_time_zone")


async def inspect_user_limits(reader: Reader) -> tuple[int, list[Breach]]:
    """How many users have such limits, and what is wrong. All streams come in the order of the users' ids."""
    count, breaches = 0, list[Breach]()
    events = reader.find(
        reader.wallet["audit_events"],
        [("subject_id", 1)],
        audit_rules.EVENT_FIELDS,
        {"subject_id": {"$regex": f"^{USER_PREFIX}"}, "action": {"$in": list(ACTIONS)}},
    )
    groups = join(
        (_by_user(reader), "of_user"),
        (reader.find(reader.wallet["wallets"], [("user_id", 1)], _WALLET_FIELDS), "user_id"),
        (events, "subject_id"),
    )
    async for user_id, (limits, wallets, deeds) in groups:
        count += len(limits)
        breaches += told_of(user_id, check_user(user_id, limits, wallets, deeds))
    return count, breaches


async def _by_user(reader: Reader) -> AsyncIterator[Row]:
    """Their ids are those of the users with another prefix, and so in the same order."""
    async for row in reader.find(reader.wallet["user_limits"], [("_id", 1)]):
        yield {**row, "of_user": USER_PREFIX + str(row["_id"]).removeprefix(LIMITS_PREFIX)}
