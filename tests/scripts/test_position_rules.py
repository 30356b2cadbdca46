"""How far below its floor returns explain that an account is: read backwards, from what it has now."""

from collections.abc import AsyncIterator
from datetime import timedelta

from scripts.position_rules import BelowFloor, Descent, Leaps, check_below_floor
from scripts.record_rules import Row
from service.domain.identifiers import Prefix, first_id_at
from tests.records import at

_MINUTE = 60_000
_HOUR = 60 * _MINUTE


def excused(headroom: int, *changes: tuple[int, int, bool]) -> int:
    """Of changes from the newest to the oldest: when, by how much, and whether it could have been refused."""
    descent = Descent(headroom)
    for at_ms, change, is_refusable in changes:
        if not descent.take(at_ms, change, is_refusable=is_refusable):
            break
    return descent.excused


class TestDescent:
    def test_counts_every_return_since_the_account_was_last_at_its_floor(self) -> None:
        changes = (9 * _HOUR, -30, False), (8 * _HOUR, 5, True), (7 * _HOUR, -40, False), (6 * _HOUR, 60, True)
        assert excused(-60, *changes) == 70

    def test_counts_no_return_that_was_made_good_before(self) -> None:
        changes = (9 * _HOUR, -60, True), (8 * _HOUR, 100, True), (7 * _HOUR, -100, False), (6 * _HOUR, 50, True)
        assert excused(-10, *changes) == 0

    def test_counts_a_return_that_another_clock_puts_just_before(self) -> None:
        """The withdrawal was committed first: 20 were there, 10 were left, then the bank took 20 back."""
        newest = 9 * _HOUR
        changes = (newest, -10, True), (newest - _MINUTE, -20, False), (newest - 2 * _MINUTE, 20, True)
        assert excused(-10, *changes) == 20

    def test_counts_all_of_an_account_that_never_was_at_its_floor(self) -> None:
        assert excused(-100, (9 * _HOUR, -30, False), (1 * _HOUR, -40, False)) == 70


class History:
    """Entries and returns of the bank's account, of which it counts how many were read."""

    def __init__(self, entries: list[Row], returns: list[Row]) -> None:
        self.entries, self.returns = entries, returns
        self.read = 0

    async def breaches(self, below: int, *leaps: Row) -> bool:
        account = BelowFloor(("bank", "INR"), 0, -below)
        entries, returns = self._read(self.entries), self._read(self.returns)
        return await check_below_floor(account, entries, returns, Leaps(leaps)) is not None

    async def _read(self, rows: list[Row]) -> AsyncIterator[Row]:
        for row in rows:
            self.read += 1
            yield row


def entry_at(minute: int, change: int) -> Row:
    """A deposit or a withdrawal, by the server's logical clock."""
    kind = "DEPOSIT" if change > 0 else "WITHDRAWAL_HOLD"
    amounts = {"available_before": 0, "available_after": change, "held_before": 0, "held_after": 0}
    entry_id = first_id_at(Prefix.ENTRY, at(minute)) + "7" * 20
    return {"_id": entry_id, "type": kind, "counterparty": "bank", "currency": "INR", **amounts}


def return_at(minute: int, amount: int) -> Row:
    return {"amount": amount, "created_at": at(minute)}


def set_back(minute: int, by: timedelta) -> Row:
    return {"noticed_at": at(minute), "highest_at": at(minute) + by}


class TestAClockThatWasSetBack:
    """At minute 60 the server's clock leapt to minute 120, where 20 were paid in and 10 went out, and was set right."""

    ENTRIES = (entry_at(121, -10), entry_at(120, 20))

    async def test_does_not_hide_the_return_that_explains_why_the_account_is_below_its_floor(self) -> None:
        history = History([*self.ENTRIES], [return_at(63, 20)])
        assert await history.breaches(10), "a return of an hour before explains nothing"
        assert not await history.breaches(10, set_back(62, timedelta(hours=1)))

    async def test_explains_no_more_than_was_taken_back_since(self) -> None:
        history = History([*self.ENTRIES], [return_at(63, 20), return_at(55, 20)])
        assert await history.breaches(21, set_back(62, timedelta(hours=1)))
        assert await history.breaches(10, set_back(30, timedelta(minutes=20)))


async def test_returns_are_read_no_further_than_they_matter() -> None:
    history = History([entry_at(500, 20)], [return_at(499 - number, 1) for number in range(400)])
    assert not await history.breaches(1)
    assert history.read < 60
