"""A day long ago with books and a bank of its own: what is booked here, and what its statement says."""

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import uuid4

from service.domain.breaks import Break, BreakKind, BreakState
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, first_id_at, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Operation, OperationType
from service.domain.returns import Return
from service.domain.wallets import Wallet
from service.gateways.bank import BankOrder, BankReport, OrderKind, StatementLine
from service.ledger.returns import TakeReturn
from service.repositories import breaks as break_repository
from service.repositories.breaks import BreakFilter
from service.services.reconciliation import Clerk, compare_days
from tests.books_of_their_own import OwnBooks
from tests.factories import change, deposit_of, entries_of_any_time, failure_of, run, settlement_of, withdrawal_of

_NOON = time(12)
_KINDS = {OperationType.WITHDRAWAL: OrderKind.PAYOUT, OperationType.DEPOSIT: OrderKind.COLLECTION}


def _booked_at(line: Any) -> datetime:
    # What cannot be read may have no time.
    at = getattr(line, "booked_at", None)
    return at if isinstance(at, datetime) and at.tzinfo is not None else datetime.max.replace(tzinfo=UTC)


class ScriptedBank:
    """Says of each day what it was told to say."""

    def __init__(self) -> None:
        self.lines: dict[date, list[StatementLine]] = defaultdict(list)

    async def submit(self, order: BankOrder) -> BankReport:
        raise NotImplementedError

    async def find(self, reference: str) -> BankReport | None:
        raise NotImplementedError

    async def statement(self, day: date) -> list[StatementLine]:
        return sorted(self.lines[day], key=_booked_at)


class Desk:
    """A day long ago that no other test has, its books and its bank."""

    def __init__(self, books: OwnBooks, wallet: Wallet, day: date) -> None:
        self.books, self.wallet, self.day = books, wallet, day
        self.bank = ScriptedBank()
        self.clerk = Clerk(books.databases.client, books.resources.ledger, self.bank, books.resources.settings)

    def at(self, moment: time = _NOON, days: int = 0) -> datetime:
        return datetime.combine(self.day, moment, UTC) + timedelta(days=days)

    async def ask(self, amount: int = 1_000, *, deposit: bool = False) -> Operation:
        order = deposit_of if deposit else withdrawal_of
        return await change(self.books.databases, order(self.wallet, amount))

    async def settle(self, amount: int = 1_000, at: datetime | None = None, *, deposit: bool = False) -> Operation:
        """Success here, and booked at that time."""
        moment = at or self.at()
        operation = await self.ask(amount, deposit=deposit)
        entry_id = first_id_at(Prefix.ENTRY, moment) + uuid4().hex[12:]
        with entries_of_any_time():
            return await change(self.books.databases, settlement_of(operation, entry_id=entry_id))

    async def give_back(self, operation: Operation, at: datetime | None = None) -> Operation:
        """The bank has said that it came back, and it is booked at that time."""
        said = Said(
            SaidEvent.RETURNED, None, operation.amount, operation.currency, "bnk_back", "AC04", "Closed account"
        )
        command = TakeReturn(
            now=utc_now(),
            # What a wallet pays of a return is dated by it.
            transaction_id=first_id_at(Prefix.TRANSACTION, at or self.at()) + uuid4().hex[12:],
            operation_id=operation.id,
            wallet_id=operation.wallet_id,
            user_id=operation.user_id,
            said=said,
            entry_id=first_id_at(Prefix.ENTRY, at or self.at()) + uuid4().hex[12:],
            incident_id=new_id(Prefix.INCIDENT),
            incident_event_id=new_id(Prefix.AUDIT_EVENT),
            freeze_event_id=new_id(Prefix.AUDIT_EVENT),
        )
        with entries_of_any_time():
            (decided,) = await run(self.books.databases, command)
        assert isinstance(decided.record, Return), decided
        return operation

    async def fail(self) -> Operation:
        return await change(self.books.databases, failure_of(await self.ask()))

    def pay(self, operation: Operation, at: datetime | None = None, **said: Any) -> StatementLine:
        """The bank has it in its statement."""
        line = StatementLine(
            reference=operation.id,
            kind=_KINDS[operation.type],
            is_return=False,
            amount=operation.amount,
            currency=operation.currency,
            bank_reference=f"bnk_{uuid4().hex}",
            booked_at=at or self.at(),
        )._replace(**said)
        self.bank.lines[line.booked_at.date()].append(line)
        return line

    async def compare(self, days: int = 0) -> list[tuple[BreakKind, str]]:
        """What is open of that day afterwards."""
        await compare_days(self.clerk, [self.day + timedelta(days=days)])
        return [(one.kind, one.subject) for one in await self.breaks() if one.state is not BreakState.RESOLVED]

    async def breaks(self) -> list[Break]:
        """Of this desk's days and their neighbours, the oldest first."""
        found = []
        for days in range(-2, 3):
            day = (self.day + timedelta(days=days)).isoformat()
            found += await break_repository.find_newest(BreakFilter(day=day), before_id=None, limit=100)
        return sorted(found)
