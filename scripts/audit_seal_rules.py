"""Checks that audit events are what checkpoints sealed, without any I/O.

Written out a second time like `checkpoint_rules`. Each checkpoint of version 3 names the events that no checkpoint
before had sealed, and signs one hash over all of them in the order of their ids. Events come here in that order too, so
that one hash for each checkpoint is all that is kept.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from scripts.checkpoint_rules import tagged
from scripts.ledger_rules import Breach
from scripts.record_rules import Row, epoch_ms

# How far before its predecessor a checkpoint looks for events that came late. The service says the same.
_LOOK_BACK: Final = timedelta(days=1)


class SealRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    SEAL = "audit_seal"
    UNSEALED = "audit_unsealed"


class Seals:
    """The checkpoints that seal audit events, and what was found under each seal."""

    def __init__(self) -> None:
        self._wanted: dict[int, Row] = {}
        self._found: dict[int, tuple[int, hashlib._Hash]] = {}
        self._first_at: datetime | None = None
        self._sealed_until = ""

    @property
    def first_event_id(self) -> str:
        """Returns the id at which sealing begins: older ones come before the first seal. Empty where there is none."""
        return "" if self._first_at is None else _first_id_at(self._first_at - _LOOK_BACK)

    def expect(self, checkpoint: Row) -> None:
        """Takes a checkpoint of the series, in the order of numbers."""
        if checkpoint.get("audit_root") is None:
            return
        number = checkpoint["_id"]
        self._wanted[number] = checkpoint
        self._found[number] = (0, hashlib.sha256(tagged("audit")))
        if self._first_at is None:
            self._first_at = checkpoint["created_at"]
        # What is older than this has been within the reach of this checkpoint, and came after it.
        self._sealed_until = _first_id_at(checkpoint["created_at"] - _LOOK_BACK)

    def follow(self, event_id: str, numbers: Sequence[int], events: Sequence[Row]) -> Iterator[Breach]:
        """Takes an event that exists, is named by the checkpoints `numbers`, or both; ids go up from call to call."""
        for number in numbers:
            if number in self._found and events:
                count, hashed = self._found[number]
                hashed.update(_hash_of(events[0]))
                self._found[number] = count + 1, hashed
        if numbers and not events:
            yield Breach(SealRule.SEAL, event_id, f"checkpoint {numbers[0]} sealed it, and it is gone")
        elif len(numbers) > 1:
            yield Breach(SealRule.SEAL, event_id, f"checkpoints {sorted(numbers)} name it, one would")
        elif not numbers and self.first_event_id <= event_id < self._sealed_until:
            yield Breach(SealRule.UNSEALED, event_id, "it came more than a day after its id says, and nothing seals it")

    def end(self) -> Iterator[Breach]:
        for number, checkpoint in self._wanted.items():
            count, hashed = self._found[number]
            if (count, hashed.hexdigest()) != (checkpoint.get("audit_events"), checkpoint["audit_root"]):
                detail = f"it sealed {checkpoint.get('audit_events')} events as {checkpoint['audit_root']}, here are "
                yield Breach(SealRule.SEAL, str(number), f"{detail}{count} as {hashed.hexdigest()}")


def _hash_of(event: Row) -> bytes:
    """Hashes the event as the API shows it."""
    at = event.get("at")
    told = at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if isinstance(at, datetime) else at
    shown = {**event, "id": event["_id"], "at": told}
    del shown["_id"]
    # A forged one may hold anything.
    content = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(tagged("audit-event", content.encode())).digest()


def _first_id_at(moment: datetime) -> str:
    return f"aud_{epoch_ms(moment):012x}"
