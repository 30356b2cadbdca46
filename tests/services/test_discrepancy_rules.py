"""check-ledger on lines that were set aside and on decisions: damage that is planted is found."""

from scripts import discrepancy_rules
from scripts.check_ledger import check_ledger
from service.domain.breaks import fingerprint
from service.services.breaks import resolve_break
from service.services.reconciliation import compare_days
from tests.services.statement_desk import Desk

_RULES = ("line_untold", "decision_facts")


async def found(desk: Desk) -> set[tuple[str, str]]:
    return {(one.rule, one.subject) for one in await check_ledger(desk.books.databases) if one.rule in _RULES}


async def test_a_line_of_which_nobody_was_told_and_facts_behind_a_decision(desk: Desk) -> None:
    operation = await desk.fail()
    line = desk.pay(operation)
    desk.bank.lines[desk.day].append(line._replace(amount=0))
    await compare_days(desk.clerk, [desk.day])
    differing, unreadable = sorted(await desk.breaks(), key=lambda one: one.kind, reverse=True)
    await resolve_break(desk.books.databases.client, "usr_1", differing.id, "Taken back by hand", None)
    assert await found(desk) == set()
    breaks = desk.books.admin.wallet["breaks"]
    await breaks.update_one({"_id": differing.id}, {"$set": {"found.status": "nothing"}})
    assert await found(desk) == {("decision_facts", differing.id)}
    await breaks.delete_one({"_id": unreadable.id})
    assert await found(desk) == {("decision_facts", differing.id), ("line_untold", unreadable.subject)}


def test_both_say_the_same_of_facts() -> None:
    for expected, seen in (({"amount": 1}, {"amount": 2, "lines": 1}), ({"available": 5}, {"available": 7, "held": 1})):
        assert discrepancy_rules.fingerprint(dict(expected), dict(seen)) == fingerprint(expected, seen)
