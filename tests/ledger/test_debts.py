"""Every way in which the money of a deposit may be gone when the bank takes it back, and every order of what comes in.

In memory, against plain arithmetic: so many as they are, they take a second.
"""

from datetime import timedelta
from itertools import permutations, product
from typing import Any, NamedTuple, cast

import pytest

from service.domain.adjustments import AdjustmentType
from service.domain.clock import utc_now
from service.domain.holds import Hold, HoldStatus
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Operation
from service.domain.policy import Policy
from service.domain.returns import Return
from service.domain.wallets import Wallet, new_wallet
from service.ledger.adjustments import RequestAdjustment
from service.ledger.batch import Decided
from service.ledger.commands import Command
from service.ledger.holds import RequestHold
from service.ledger.returns import NamedHold, TakeReturn
from tests.factories import asking_of, cancellation_of, deposit_of, settlement_of, withdrawal_of
from tests.machine.books import MemoryBooks

_AMOUNT = 10
_SPENT = (0, 1, 4, 10)
_HELD = ((), (3,), (2, 4))
_PENDING = (0, 2)
_OWNER = "usr_owner"
_SERVICE = "usr_service"
_DETAILS: dict[str, Any] = {"category": None, "description": None, "metadata": {}}


class Ways(NamedTuple):
    """What became of a deposit of 10: spent, in holds (oldest first), in a withdrawal not yet submitted."""

    spent: int
    held: tuple[int, ...]
    pending: int

    @property
    def available(self) -> int:
        return _AMOUNT - self.spent - sum(self.held) - self.pending


_WAYS = [ways for ways in map(Ways._make, product(_SPENT, _HELD, _PENDING)) if ways.available >= 0]


class World:
    """One wallet, in memory."""

    def __init__(self) -> None:
        self.books = MemoryBooks()
        self.wallet = new_wallet(new_id(Prefix.WALLET), _OWNER, "INR", utc_now())
        self.holds: list[RequestHold] = []
        self.pending: Operation | None = None

    async def begin(self, ways: Ways) -> Operation:
        await self.books.open([_OWNER, _SERVICE], {self.wallet.id: (_OWNER, "INR")}, self.wallet.created_at)
        deposit = await self.settled(deposit_of(self.wallet, _AMOUNT, claim=None))
        if ways.spent:
            await self.settled(withdrawal_of(self.wallet, ways.spent, claim=None))
        for amount in ways.held:
            self.holds.append(self.hold(amount))
            await self.say(self.holds[-1])
        if ways.pending:
            asked = await self.say(withdrawal_of(self.wallet, ways.pending, claim=None))
            self.pending = cast(Operation, asked.record)
        return deposit

    async def say(self, command: Command) -> Decided:
        (decided,) = await self.books.run([command], Policy())
        assert decided.error is None, decided.error
        return decided

    async def settled(self, command: Command) -> Operation:
        operation = cast(Operation, (await self.say(command)).record)
        asked = cast(Operation, (await self.say(asking_of(operation))).record)
        return cast(Operation, (await self.say(settlement_of(asked))).record)

    def hold(self, amount: int) -> RequestHold:
        return RequestHold(
            hold_id=new_id(Prefix.HOLD),
            wallet_id=self.wallet.id,
            to_wallet_id=None,
            amount=amount,
            currency="INR",
            lifetime=timedelta(days=1),
            entry_id=new_id(Prefix.ENTRY),
            **_DETAILS,
            **_common(),
        )

    async def take_back(self, deposit: Operation) -> Return:
        said = Said(SaidEvent.RETURNED, None, deposit.amount, deposit.currency, "ret_test")
        command = TakeReturn(
            now=utc_now(),
            transaction_id=new_id(Prefix.TRANSACTION),
            operation_id=deposit.id,
            wallet_id=deposit.wallet_id,
            user_id=deposit.user_id,
            said=said,
            entry_id=new_id(Prefix.ENTRY),
            incident_id=new_id(Prefix.INCIDENT),
            incident_event_id=new_id(Prefix.AUDIT_EVENT),
            freeze_event_id=new_id(Prefix.AUDIT_EVENT),
            holds=tuple(
                NamedHold(hold.hold_id, new_id(Prefix.ENTRY), hold.to_wallet_id) for hold in reversed(self.holds)
            ),
        )
        return cast(Return, (await self.say(command)).record)

    async def come_in(self, what: str) -> None:
        if what == "credit":
            await self.say(self.credit(5))
        else:
            assert self.pending is not None
            await self.say(cancellation_of(self.pending, claim=None))

    def credit(self, amount: int) -> RequestAdjustment:
        return RequestAdjustment(
            adjustment_id=new_id(Prefix.ADJUSTMENT),
            entry_id=new_id(Prefix.ENTRY),
            type=AdjustmentType.CREDIT,
            wallet_id=self.wallet.id,
            amount=amount,
            currency="INR",
            is_admin=False,
            audit_event_id=new_id(Prefix.AUDIT_EVENT),
            reason="A test",
            **_DETAILS,
            **(_common() | {"user_id": _SERVICE}),
        )

    async def amounts(self) -> tuple[int, int, int]:
        row = (await self.books.find("wallets", [self.wallet.id]))[self.wallet.id]
        return row["available"], row["held"], row["owed"]

    async def collected(self) -> int:
        entries = await self.books.find_entries({self.wallet.id: 0})
        return sum(row["amount"] for row in entries if row["type"] == "DEPOSIT_RETURN")


def _common() -> dict[str, Any]:
    ids = {"now": utc_now(), "transaction_id": new_id(Prefix.TRANSACTION)}
    return ids | {"user_id": _OWNER, "token_version": None}


class TestAReturn:
    @pytest.mark.parametrize("ways", _WAYS, ids=str)
    async def test_takes_what_is_there_and_then_whatever_comes_in(self, ways: Ways) -> None:
        kinds = ["credit", *(["refund"] if ways.pending else [])]
        for order in permutations(kinds):
            world = World()
            deposit = await world.begin(ways)
            returned = await world.take_back(deposit)
            there = ways.available + sum(ways.held)
            free, owed = max(0, there - _AMOUNT), max(0, _AMOUNT - there)
            assert await world.amounts() == (free, ways.pending, owed), ways
            assert (returned.collected, returned.owed, await world.collected()) == (
                _AMOUNT - owed,
                owed,
                _AMOUNT - owed,
            )
            assert (returned.status == "owed") == bool(owed)
            aside = ways.pending
            for what in order:
                await world.come_in(what)
                amount = 5 if what == "credit" else ways.pending
                aside -= 0 if what == "credit" else amount
                paid = min(owed, amount)
                owed, free = owed - paid, free + amount - paid
                assert await world.amounts() == (free, aside, owed), (ways, order, what)
                assert await world.collected() == _AMOUNT - owed

    @pytest.mark.parametrize("also", range(8))
    async def test_takes_of_holds_the_newest_first_and_no_more_than_is_missing(self, also: int) -> None:
        """With so much more in the wallet than the deposit."""
        world = World()
        deposit = await world.begin(Ways(0, (), 0))
        if also:
            await world.settled(deposit_of(world.wallet, also, claim=None))
        world.holds = [world.hold(amount) for amount in (3, 4)]
        for hold in world.holds:
            await world.say(hold)
        await world.take_back(deposit)
        # 3 + also are available; 7 - also are missing, of which the newest hold gives up to 4.
        newer = max(0, min(4, 7 - also))
        older = 7 - also - newer
        records = await world.books.find("holds", [hold.hold_id for hold in world.holds])
        taken = [sum(one["amount"] for one in records[hold.hold_id]["takings"]) for hold in world.holds]
        assert taken == [older, newer]
        statuses = [records[hold.hold_id]["status"] for hold in world.holds]
        assert statuses == ["taken" if older == 3 else HoldStatus.HELD, "taken" if newer == 4 else HoldStatus.HELD]
        assert await world.amounts() == (0, also, 0)


def test_a_hold_without_takings_is_whole() -> None:
    """As rows of earlier releases are."""
    fields: dict[str, Any] = dict.fromkeys(Hold._fields)
    assert Hold(**fields | {"amount": 7, "takings": ()}).left == 7


def test_a_wallet_of_nothing_owes_nothing() -> None:
    wallet: Wallet = new_wallet("wal_new", _OWNER, "INR", utc_now())
    assert (wallet.owed, wallet.debts) == (0, ())
