"""Compares the copy of the checkpoints outside the database with the database, without any I/O.

Written out a second time like `checkpoint_rules`. Whoever is root on MongoDB can erase a payment together with its
checkpoint and let another one be signed; inside the database everything then fits. The copy keeps the first one.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from scripts.checkpoint_rules import hash_of_published, is_signed
from scripts.ledger_rules import GENESIS, Breach, is_shaped
from scripts.record_rules import Row

_LINE_SHAPE: Final[Mapping[str, type]] = {
    **dict.fromkeys(("number", "wallets"), int),
    **dict.fromkeys(("created_at", "root", "prev_hash", "key_id", "signature"), str),
}


class PlaceRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    LINE = "place_line"
    SECOND = "place_second"
    GAP = "place_gap"
    OTHER = "place_other"
    LOST = "place_lost"
    MISSING = "place_missing"


class Place:
    """The lines of one file, one by one."""

    def __init__(self, name: str, content: bytes, key: Ed25519PublicKey | None) -> None:
        """Without a key, nobody says whether signatures hold."""
        self._name = name
        self._key = key
        self._lines = content.split(b"\n")
        # By their numbers: the hash, and whether the signature holds where that was looked at.
        self._found: dict[int, tuple[str, str]] = {}

    def check_lines(self) -> Iterator[Breach]:
        """Requires whole lines, numbers from 1 on, and one checkpoint for each number. A number is left out only where
        the link shows that no checkpoint is missing.

        The beginning of a line that a crash left behind may stand before the whole line, or at the end.
        """
        last, last_hash = 0, GENESIS
        for at, line in enumerate(self._lines):
            published = _read(line)
            if published is None:
                is_last = at == len(self._lines) - 1
                if not is_last and not self._lines[at + 1].startswith(line):
                    yield Breach(PlaceRule.LINE, f"{self._name}:{at + 1}", "the line is no checkpoint")
                continue
            number, hash_here = published["number"], hash_of_published(published)
            known = self._found.setdefault(number, (hash_here, self._said_of(published)))
            if known[0] != hash_here:
                detail = f"{known[0]} was copied first{known[1]}, then {hash_here}{self._said_of(published)}"
                yield Breach(PlaceRule.SECOND, str(number), detail)
            elif number > last + 1 and published["prev_hash"] != last_hash:
                yield Breach(PlaceRule.GAP, str(number), f"in {self._name} it follows {last}")
            if number > last:
                last, last_hash = number, hash_here

    def _said_of(self, published: Row) -> str:
        if self._key is None:
            return ""
        return " (its signature holds)" if is_signed(published, self._key) else " (its signature does not hold)"

    def compare(self, hashes: Mapping[int, str], times: Mapping[int, datetime], due_at: datetime) -> Iterator[Breach]:
        """Compares with the database's checkpoints. One that was made after `due_at` may still be on its way here."""
        for number, (hash_here, said) in sorted(self._found.items()):
            known = hashes.get(number)
            if known is None:
                yield Breach(PlaceRule.LOST, str(number), f"{self._name} has {hash_here}{said}, the database has none")
            elif known != hash_here:
                detail = f"{self._name} has {hash_here}{said}, the database {known}: two were made of one number"
                yield Breach(PlaceRule.OTHER, str(number), detail)
        late = [number for number, taken_at in times.items() if number not in self._found and taken_at < due_at]
        if late:
            detail = f"{self._name} has neither it nor {len(late) - 1} others that are due"
            yield Breach(PlaceRule.MISSING, str(min(late)), detail)


def _read(line: bytes) -> Row | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and is_shaped(found, _LINE_SHAPE) else None
