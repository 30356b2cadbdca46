"""Checks points and vouchers: compares rewards and redemptions with entries, and stocks with redemptions.

Written out a second time like ledger_rules.py, and for the same reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from scripts.ledger_rules import Breach, Rule, is_shaped
from scripts.record_rules import Row

# The ids of what moves points.
POINTS_PREFIXES: Final = ("rwd_", "rdm_")
_POINTS: Final = "PTS"

_REWARD_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "user_id", "wallet_id", "operation_id", "status"), str),
    "points": int,
    "rules": dict,
}
_REDEMPTION_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("_id", "user_id", "wallet_id", "voucher_id"), str),
    "cost": int,
}
_VOUCHER_SHAPE: Final[Mapping[str, type]] = dict.fromkeys(("stock", "stocked_total"), int)


class Due(NamedTuple):
    """The entry that has to be there, or None where there has to be none."""

    entry_type: str | None
    amount: int


def check_points(
    key: str, rewards: Sequence[Row], redemptions: Sequence[Row], entries: Sequence[Row]
) -> Iterator[Breach]:
    """Requires one entry for each reward or redemption, of its amount and in its wallet."""
    found = (*rewards, *redemptions)
    if not found:
        yield Breach(Rule.OPERATION_UNKNOWN, key, f"entry ({len(entries)}) of what does not exist")
        return
    record = found[0]
    if not is_shaped(record, _REWARD_SHAPE if rewards else _REDEMPTION_SHAPE):
        yield Breach(Rule.MALFORMED, key, "it lacks fields or has wrong types")
        return
    if rewards:
        yield from _check_reward(record)
        due = Due("POINTS_EARNED" if record["status"] == "success" else None, record["points"])
    else:
        due = Due("VOUCHER", record["cost"])
    yield from _check_entry(key, record, due, entries)


def _check_reward(reward: Row) -> Iterator[Breach]:
    key = reward["_id"]
    if key.partition("_")[2] != reward["operation_id"].partition("_")[2]:
        yield Breach(Rule.OPERATION_STATE, key, f"it rewards {reward['operation_id']}, which has another one")
    if reward["status"] not in ("success", "lapsed"):
        yield Breach(Rule.OPERATION_STATE, key, f"status {reward['status']}")
    if reward["points"] != sum(reward["rules"].values()):
        yield Breach(Rule.OPERATION_STATE, key, f"{reward['points']} points, by its rules {reward['rules']}")


def _check_entry(key: str, record: Row, due: Due, entries: Sequence[Row]) -> Iterator[Breach]:
    types = [str(entry.get("type")) for entry in entries]
    if due.entry_type is not None and due.entry_type not in types:
        yield Breach(Rule.ENTRY_MISSING, key, f"without {due.entry_type}")
    if len(types) > (due.entry_type is not None) or set(types) - {due.entry_type}:
        yield Breach(Rule.ENTRY_SURPLUS, key, f"with {', '.join(types)} instead of {due.entry_type}")
    wanted = {
        "amount": due.amount,
        "currency": _POINTS,
        "wallet_id": record["wallet_id"],
        "user_id": record["user_id"],
    }
    for entry in entries:
        for name, value in wanted.items():
            if entry.get(name) != value:
                detail = f"{entry.get('type')} has {name} {entry.get(name)}, it should be {value}"
                yield Breach(Rule.ENTRY_MISMATCH, key, detail)


def check_voucher(voucher_id: str, vouchers: Sequence[Row], redeemed: int) -> Iterator[Breach]:
    """Requires that what is left and what was redeemed add up to what was stocked."""
    if not vouchers:
        yield Breach(Rule.OPERATION_UNKNOWN, voucher_id, f"{redeemed} redemptions of a voucher that does not exist")
        return
    voucher = vouchers[0]
    if not is_shaped(voucher, _VOUCHER_SHAPE):
        yield Breach(Rule.MALFORMED, voucher_id, "the voucher lacks fields or has wrong types")
        return
    stock, stocked = voucher["stock"], voucher["stocked_total"]
    if stock < 0 or stock + redeemed != stocked:
        detail = f"{stock} in stock and {redeemed} redeemed, of {stocked} that were ever stocked"
        yield Breach(Rule.VOUCHER_STOCK, voucher_id, detail)


def check_voucher_use(key: str, counted: int, redeemed: int) -> Iterator[Breach]:
    """Compares how often a person is counted to have redeemed a voucher with how often they have."""
    if counted != redeemed:
        yield Breach(Rule.VOUCHER_USE, key, f"counted {counted} times, redeemed {redeemed} times")
