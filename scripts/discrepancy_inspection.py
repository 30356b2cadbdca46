"""Reads discrepancies ("breaks"), the days that were compared and the lines that were set aside, and holds them against
each other.
"""

from collections import Counter
from typing import Final

from scripts.discrepancy_rules import check_decision, check_set_aside
from scripts.ledger_reader import Reader
from scripts.ledger_rules import Breach

_BY_ID: Final = (("_id", 1),)
_BREAK_FIELDS: Final = ("_id", "kind", "subject", "state", "expected", "found", "explained", "resolved")
_LINE_FIELDS: Final = ("_id", "day", "reason", "first_seen")
# As their last statements have them.
_CURRENT: Final = {"is_withdrawn": False}


async def inspect_discrepancies(reader: Reader) -> tuple[Counter[str], list[Breach]]:
    """How many there are, and what is wrong. Which lines are told of is held in memory: they are few."""
    counts, breaches = Counter[str](), list[Breach]()
    told: set[str] = set()
    async for one in reader.find(reader.wallet["breaks"], _BY_ID, _BREAK_FIELDS):
        counts["discrepancies"] += 1
        breaches += check_decision(one)
        if one.get("kind") == "line_set_aside":
            told.add(str(one.get("subject")))
    days = reader.find(reader.wallet["reconciliations"], _BY_ID, ("_id", "compared_at"))
    compared_at = {str(day["_id"]): day.get("compared_at") async for day in days}
    async for line in reader.find(reader.wallet["set_aside_lines"], _BY_ID, _LINE_FIELDS, _CURRENT):
        counts["lines set aside"] += 1
        breaches += check_set_aside(line, compared_at, told)
    return counts, breaches
