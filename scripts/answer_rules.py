"""Checks idempotency records: an answer names the records that its key made, and each such record has its answer.

Written out a second time like `ledger_rules`, and for the same reason. What a key has made carries a tombstone of it
for ever; the answer under the key is kept for a retention. Within that time, whatever has a tombstone has an answer.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from scripts.ledger_rules import Breach, Rule
from scripts.record_rules import KINDS, Row, epoch_ms

ANSWER_FIELDS: Final = ("_id", "status_code", "body", "fingerprint")
# No setting lets them be forgotten sooner.
KEPT_AT_LEAST: Final = timedelta(hours=24)
# Near the end of the retention an answer may be gone while its record still lies within the time that is looked at.
MARGIN: Final = timedelta(minutes=10)

_OK: Final = 200
_MADE: Final = frozenset({201, 202})
_ACCEPTED: Final = 202
_SUCCESSES: Final = frozenset({_OK, *_MADE})
_BATCH: Final = "tbt_"
# Maps the prefix of an id in an answer to the collection of its record.
COLLECTIONS: Final[Mapping[str, str]] = {**{kind.prefix: kind.collection for kind in KINDS}, "rdm": "redemptions"}
# By whom each is asked for.
ASKERS: Final[Mapping[str, str]] = {**{kind.prefix: kind.asked_by for kind in KINDS}, "rdm": "user_id"}
_TIME_DIGITS: Final = 12
_HOUR_MS: Final = 3_600_000
_HASH_BYTES: Final = 8


class AnswerRule(StrEnum):
    """Names of the rules, as a breach shows them."""

    MISSING = "idempotency_missing"


def is_success(answer: Row) -> bool:
    return answer.get("status_code") in _SUCCESSES


def named_by(answer: Row) -> list[str]:
    """The ids of the records that an answer is about: one, or one for each part of a batch."""
    body = _body_of(answer)
    if str(body.get("id")).startswith(_BATCH):
        results = body.get("results")
        parts = [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []
        transfers = [part.get("transfer") for part in parts]
        return [str(one.get("id")) for one in transfers if isinstance(one, dict)]
    return [str(body["id"])] if prefix_of(str(body.get("id"))) in COLLECTIONS else []


def _body_of(answer: Row) -> dict[str, Any]:
    try:
        body = json.loads(bytes(answer["body"]))
    except (KeyError, TypeError, ValueError):
        # The caller reports it: an answer that cannot be read names nothing.
        return {}
    return body if isinstance(body, dict) else {}


def prefix_of(record_id: str) -> str:
    return record_id.partition("_")[0]


def check_answer(answer: Row, records: Mapping[str, Row]) -> Iterator[Breach]:
    """Checks the answer of one success. `records` has those of the named records that exist."""
    answer_id, status, body = str(answer["_id"]), answer.get("status_code"), _body_of(answer)
    named = named_by(answer)
    if status == _ACCEPTED and not named and not str(body.get("id")).startswith(_BATCH):
        yield Breach(Rule.ANSWER_BROKEN, answer_id, f"its {status} names no operation")
    for record_id in named:
        record = records.get(record_id)
        if record is None:
            yield Breach(Rule.ANSWER_BROKEN, answer_id, f"its {status} names {record_id}, which does not exist")
        # What admins propose in a review is accepted too, and is about somebody else's operation.
        elif status in _MADE and "proposal" not in body and not _is_asked_by(answer_id, record_id, record):
            yield Breach(Rule.ANSWER_BROKEN, answer_id, f"its {status} names {record_id} of another user")


def _is_asked_by(answer_id: str, record_id: str, record: Row) -> bool:
    return answer_id.startswith(f"{record.get(ASKERS[prefix_of(record_id)])}:")


class Made:
    """Everything that keys have made since a moment, and everything that answers say was made: as sums for each hour,
    so that it takes no more memory however much it is. Where the sums of an hour differ, something is missing in it.
    """

    def __init__(self, since: datetime) -> None:
        self.since_ms = epoch_ms(since)
        self._sums: dict[int, int] = {}

    def take_record(self, record: Row) -> None:
        if isinstance(record.get("tombstone"), dict):
            self._add(str(record["_id"]))

    def take_answer(self, answer: Row, records: Mapping[str, Row]) -> None:
        """Picks the named records that the request made: those with its fingerprint."""
        for record_id in named_by(answer):
            if is_made_by(answer, records.get(record_id)):
                self._add(record_id)

    def _add(self, record_id: str) -> None:
        hour = self.hour_of(record_id)
        if hour is not None:
            digest = sha256(record_id.encode()).digest()[:_HASH_BYTES]
            self._sums[hour] = self._sums.get(hour, 0) ^ int.from_bytes(digest)

    def hour_of(self, record_id: str) -> int | None:
        """The hour in which the id was made; None before the moment, and for an id that has no time."""
        try:
            made_ms = int(record_id.partition("_")[2][:_TIME_DIGITS], 16)
        except ValueError:
            return None
        return made_ms // _HOUR_MS if made_ms >= self.since_ms else None

    @property
    def unequal_hours(self) -> list[int]:
        return sorted(hour for hour, total in self._sums.items() if total)


def is_made_by(answer: Row, record: Row | None) -> bool:
    tombstone = None if record is None else record.get("tombstone")
    is_maker = answer.get("status_code") in _MADE
    return is_maker and isinstance(tombstone, dict) and tombstone.get("fingerprint") == answer.get("fingerprint")


def ids_within(prefix: str, hour: int) -> Row:
    """The condition for ids that were made in that hour."""
    start, end = (f"{prefix}_{at * _HOUR_MS:0{_TIME_DIGITS}x}" for at in (hour, hour + 1))
    return {"$gte": start, "$lt": end}


def missing_answers(records: Sequence[Row], answered: set[str]) -> Iterator[Breach]:
    """Describes an hour in which the sums differ."""
    for record in records:
        if isinstance(record.get("tombstone"), dict) and record["_id"] not in answered:
            detail = "it was made under a key, and no answer is kept under that key"
            yield Breach(AnswerRule.MISSING, str(record["_id"]), detail)
