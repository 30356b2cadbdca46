"""Checks events: their numbers, and what the last one of each subject says.

Like `ledger_rules`, written out a second time on purpose, over documents as the driver gives them. Events are forgotten
after their time, the oldest first: what is not there at the beginning is no gap.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from scripts.ledger_rules import Breach, Rule
from scripts.points_rules import POINTS_PREFIXES
from scripts.record_rules import KINDS, Row

# No setting lets them be forgotten sooner.
KEPT_AT_LEAST: Final = timedelta(hours=1)
# Of what other kinds there are nothing is read; a wallet itself is looked at with its numbers.
_LOOKED_AT: Final = frozenset({*(kind.prefix for kind in KINDS), *(prefix.rstrip("_") for prefix in POINTS_PREFIXES)})


class EventRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    MISSING = "event_missing"


class Numbers:
    """The events of one wallet in the order of their numbers, of which only the end is kept."""

    def __init__(self, wallet_id: str) -> None:
        self.wallet_id = wallet_id
        self.sequence: int | None = None
        self.owners: set[str] = set()
        # What the last one about the wallet itself says of it.
        self.status: str | None = None

    def follow(self, event: Row) -> Iterator[Breach]:
        sequence = event.get("sequence")
        subject = f"{self.wallet_id}#{sequence}"
        if not isinstance(sequence, int) or sequence < 1:
            yield Breach(Rule.EVENT_SEQUENCE, subject, f"event {event.get('_id')} has no number")
            return
        if self.sequence is not None and sequence != self.sequence + 1:
            yield Breach(Rule.EVENT_SEQUENCE, subject, f"event {event.get('_id')} follows number {self.sequence}")
        self.sequence = sequence
        self.owners.add(str(event.get("user_id")))
        if event.get("subject_id") == self.wallet_id:
            self.status = str(event.get("status"))


def check_numbers(wallet_id: str, wallets: Sequence[Row], numbers: Numbers | None, now: datetime) -> Iterator[Breach]:
    """The wallet's counter against the last of its events."""
    if not wallets:
        yield Breach(Rule.EVENT_SEQUENCE, wallet_id, "events of a wallet that does not exist")
        return
    wallet = wallets[0]
    counter = wallet.get("event_sequence", 0)
    if numbers is None:
        updated_at = wallet.get("updated_at")
        if counter and isinstance(updated_at, datetime) and now - updated_at < KEPT_AT_LEAST:
            yield Breach(Rule.EVENT_SEQUENCE, wallet_id, f"it has told {counter} events, of which none is left")
        return
    if numbers.sequence is not None and numbers.sequence != counter:
        yield Breach(
            Rule.EVENT_SEQUENCE, wallet_id, f"it has told {counter} events, the last one is {numbers.sequence}"
        )
    if numbers.owners - {wallet.get("user_id")}:
        yield Breach(Rule.EVENT_STATE, wallet_id, f"events of other users: {sorted(numbers.owners)}")
    if numbers.status not in (None, wallet.get("status")):
        yield Breach(Rule.EVENT_STATE, wallet_id, f"{wallet.get('status')}, the last event says {numbers.status}")


def check_told(subject_id: str, told: Sequence[Row], records: Sequence[Row]) -> Iterator[Breach]:
    """Compares the last event about a record with the record."""
    if not told or subject_id.partition("_")[0] not in _LOOKED_AT:
        return
    if not records:
        yield Breach(Rule.EVENT_STATE, subject_id, "events of what does not exist")
        return
    # A redemption has no status of its own: it is over as soon as it is there.
    status = records[0].get("status", "success")
    if told[0]["status"] != status:
        yield Breach(Rule.EVENT_STATE, subject_id, f"{status}, the last event says {told[0]['status']}")


def check_untold(
    subject_id: str, told: Sequence[Row], collection: str, record: Row, kept_since: datetime
) -> Iterator[Breach]:
    """Requires an event of each record made since `kept_since`: none of its events has been deleted by age."""
    created_at = record.get("created_at")
    if told or not isinstance(created_at, datetime) or created_at < kept_since:
        return
    if _is_told(collection, record):
        yield Breach(EventRule.MISSING, subject_id, f"{record.get('status')}, and no event tells of it")


def _is_told(collection: str, record: Row) -> bool:
    """Tells whether the owner of the record's own wallet must have an event about it by now."""
    match collection:
        case "adjustments" | "returns":
            return record.get("status") in ("success", "owed")
        case "reversals":
            taken = (record.get("amount") or 0) - (record.get("shortfall") or 0)
            return record.get("from_wallet_id") is not None and bool(taken)
        case _:
            return True
