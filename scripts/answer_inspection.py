"""Holds every idempotency record against what it names, and everything that keys have made against those records."""

from collections.abc import Sequence
from typing import Final

from scripts.answer_rules import (
    ANSWER_FIELDS,
    ASKERS,
    COLLECTIONS,
    Made,
    check_answer,
    ids_within,
    is_success,
    missing_answers,
    named_by,
    prefix_of,
)
from scripts.ledger_reader import Reader
from scripts.ledger_rules import Breach
from scripts.record_rules import KINDS, Row

_LOOKUP_ROWS: Final = 1_000
_BY_ID: Final = (("_id", 1),)


async def inspect_answers(reader: Reader, made: Made) -> tuple[int, list[Breach]]:
    """How many there are, and what is wrong. `made` has all records already."""
    count, breaches = 0, list[Breach]()
    portion: list[Row] = []
    async for answer in reader.find(reader.wallet["idempotency_keys"], _BY_ID, ANSWER_FIELDS):
        count += 1
        if is_success(answer):
            portion.append(answer)
        if len(portion) == _LOOKUP_ROWS:
            breaches += await _check_portion(portion, reader, made)
            portion = []
    breaches += await _check_portion(portion, reader, made)
    hours = made.unequal_hours
    if hours:
        breaches += await _find_missing(hours, reader, made)
    return count, breaches


async def _check_portion(answers: Sequence[Row], reader: Reader, made: Made) -> list[Breach]:
    wanted = {record_id for answer in answers for record_id in named_by(answer)}
    records: dict[str, Row] = {}
    for prefix, collection in COLLECTIONS.items():
        ids = sorted(record_id for record_id in wanted if prefix_of(record_id) == prefix)
        if ids:
            found = await reader.find_named(reader.wallet[collection], ids, ("_id", ASKERS[prefix], "tombstone"))
            records |= {row["_id"]: row for row in found}
    breaches: list[Breach] = []
    for answer in answers:
        breaches += check_answer(answer, records)
        made.take_answer(answer, records)
    return breaches


async def _find_missing(hours: Sequence[int], reader: Reader, made: Made) -> list[Breach]:
    """Finds records of these hours without an answer. Reads all answers again only where something is missing."""
    wanted, answered = set(hours), set[str]()
    async for answer in reader.find(reader.wallet["idempotency_keys"], _BY_ID, ANSWER_FIELDS):
        if is_success(answer):
            answered |= {one for one in named_by(answer) if made.hour_of(one) in wanted}
    breaches: list[Breach] = []
    for hour in hours:
        for kind in KINDS:
            condition = {"_id": ids_within(kind.prefix, hour)}
            found = reader.find(reader.wallet[kind.collection], _BY_ID, ("_id", "tombstone"), condition)
            records = [row async for row in found if made.hour_of(row["_id"]) is not None]
            breaches += missing_answers(records, answered)
    return breaches
