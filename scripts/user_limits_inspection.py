"""Reads each user's limits beside their wallets and the audit events about them, and holds them against each other."""

from collections.abc import AsyncIterator
from typing import Final

from scripts import audit_rules
from scripts.ledger_reader import Reader, fields_of, join
from scripts.ledger_rules import Breach, told_of
from scripts.record_rules import Row
from scripts.user_limits_rules import ACTIONS, COUNTED, LIMITS_PREFIX, USER_PREFIX, check_user

_WALLET_FIELDS: Final = ("_id", "user_id", "owner_time_zone", "counts_for_owner")
# The filter of the index that they come from.
_WAS_COUNTED: Final[Row] = {"counted.at": {"$exists": True}}


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
        *(
            (
                reader.find(
                    reader.wallet[kind.collection], [("user_id", 1)], (*fields_of(kind), "counted"), _WAS_COUNTED
                ),
                "user_id",
            )
            for kind in COUNTED
        ),
    )
    async for user_id, (limits, wallets, events_of_user, *payments) in groups:
        count += len(limits)
        sent = [(kind, row) for kind, rows in zip(COUNTED, payments, strict=True) for row in rows]
        breaches += told_of(user_id, check_user(user_id, limits, wallets, events_of_user, sent))
    return count, breaches


async def _by_user(reader: Reader) -> AsyncIterator[Row]:
    """Their ids are those of the users with another prefix, and so in the same order."""
    async for row in reader.find(reader.wallet["user_limits"], [("_id", 1)]):
        yield {**row, "of_user": USER_PREFIX + str(row["_id"]).removeprefix(LIMITS_PREFIX)}
