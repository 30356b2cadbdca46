"""What has to be true after every fault: of the books, the client's journal and the bank's; and all has ended."""

import asyncio
import time
from typing import Any, Final

from scripts.check_ledger import check_ledger
from service.database import Databases
from tests.cluster.outside_client import TOO_MUCH, Journal, Kind, OutsideClient

_OPEN: Final = ("pending", "processing")
_POLL_S: Final = 0.2
_OPERATIONS: Final = (Kind.DEPOSIT, Kind.WITHDRAWAL, Kind.TRANSFER, Kind.HOLD)


async def wait_until_all_ended(databases: Databases, limit_s: float) -> None:
    """Neither the bank's answer nor a capture is waited for any more."""
    deadline = time.monotonic() + limit_s
    while found := await _open_operations(databases):
        assert time.monotonic() < deadline, f"open {limit_s:.0f} s after the fault: {found}"
        await asyncio.sleep(_POLL_S)


async def _open_operations(databases: Databases) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind in (Kind.DEPOSIT, Kind.WITHDRAWAL):
        found += await databases.wallet[kind].find({"status": {"$in": _OPEN}}, limit=3).to_list()
    return found


async def verify(databases: Databases, client: OutsideClient) -> None:
    journal = client.journal
    assert all(request.answered_s is not None for request in journal.requests), "a request was never answered"
    defects = [request for request in journal.requests if 500 in request.statuses]
    assert not defects, f"a fault is no defect of the service, and was answered with 500: {defects[:3]}"
    await _holds_every_acknowledged_request_once(databases, journal)
    _refused_what_has_to_be(journal)
    await _has_the_balances_of_the_journal(client)
    await _paid_once(databases, journal)
    assert await databases.wallet["dead_letters"].count_documents({}) == 0, "an outage is nobody's failure"
    breaches = await check_ledger(databases)
    assert breaches == [], breaches


async def _holds_every_acknowledged_request_once(databases: Databases, journal: Journal) -> None:
    """And nothing else: what was refused is not there, and what was unknown was answered by a retry."""
    for kind in _OPERATIONS:
        rows = await databases.wallet[kind].find({}, {"amount": 1, "status": 1}).to_list()
        accepted = {request.answer["id"]: request.amount for request in journal.of(kind)}
        assert len(accepted) == len(journal.of(kind)), "two requests were answered with one operation"
        _assert_same(kind, {row["_id"]: row["amount"] for row in rows}, accepted)
        assert {row["status"] for row in rows} <= {"success", "captured"}, f"some {kind} ended otherwise"
    captured = {request.answer["id"]: request.amount for request in journal.of(Kind.CAPTURE)}
    _assert_same("captures", captured, {request.answer["id"]: request.amount for request in journal.of(Kind.HOLD)})


def _assert_same(what: str, found: dict[str, int], expected: dict[str, int]) -> None:
    """Amounts by the operation's id, here and in the client's journal."""
    unknown, missing = found.items() - expected.items(), expected.items() - found.items()
    assert not unknown, f"{what} that nobody was told of: {sorted(unknown)[:5]} and so on, {len(unknown)}"
    assert not missing, f"{what} that were acknowledged and are not there: {sorted(missing)[:5]}, {len(missing)}"


def _refused_what_has_to_be(journal: Journal) -> None:
    for request in journal.requests:
        assert request.is_accepted == (request.amount != TOO_MUCH), request
        if not request.is_accepted:
            assert request.answer["error"] == "insufficient_funds", request


async def _has_the_balances_of_the_journal(client: OutsideClient) -> None:
    expected = client.journal.balances()
    for person in client.people:
        wallet = await person.wallet()
        assert (wallet["available"], wallet["held"]) == (expected[person.wallet_id], 0), wallet


async def _paid_once(databases: Databases, journal: Journal) -> None:
    """By the bank's own journal, in a database of its own."""
    orders = await databases.bank["orders"].find({}).to_list()
    paid = {order["_id"]: len(order["payments"]) for order in orders}
    assert set(paid.values()) == {1}, f"not paid once: {[one for one in paid.items() if one[1] != 1]}"
    asked = {request.answer["id"]: request.amount for request in journal.of(Kind.DEPOSIT, Kind.WITHDRAWAL)}
    _assert_same("orders at the bank", {order["_id"]: order["amount"] for order in orders}, asked)
